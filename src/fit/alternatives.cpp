#include "fit/alternatives.h"

#include <algorithm>
#include <cmath>
#include <set>

#include <fmt/format.h>

#include "fit/claim.h"
#include "fit/vllm_flags.h"
#include "fit/what_if.h"
#include "model/snapshot.h"

namespace gpumod {

namespace {

constexpr std::int64_t smallest_context = 2048;  // with less nobody holds a conversation
constexpr std::size_t most_rungs = 16;
/// Pairs are tried with the first, a middle and the last rung of each ladder, and no more of them than this.
constexpr int most_pairs = 400;

Change change(const Subject& subject, Change::Kind kind, double loss) {
  Change made;
  made.kind = kind;
  made.service = subject.service->id;
  made.loss = loss;
  return made;
}

/// A service that is bound to one GPU, on each of the others.
Ladder other_gpus(const Subject& subject, const std::vector<GpuSample>& gpus) {
  Ladder ladder;
  const auto& devices = subject.service->gpu.devices;
  if (devices.size() != 1) return ladder;
  for (const auto& gpu : gpus) {
    if (names(subject.service->gpu, gpu) || gpu.mig == true) continue;
    auto rung = change(subject, Change::Kind::gpu, 0);
    rung.device = gpu.uuid;
    rung.text = fmt::format("run '{}' on {} ({})", rung.service, gpu_in_words(gpu.index), gpu.name);
    rung.edit = fmt::format("gpu: {}", gpu.uuid);
    rung.loses = "nothing";
    ladder.rungs.push_back(std::move(rung));
  }
  return ladder;
}

Ladder smaller_caches(const Subject& subject) {
  Ladder ladder{{}, true};
  if (!subject.flags || !subject.model || !subject.model->keeps_kv || !subject.flags->flash_attention) return ladder;
  const auto& flags = *subject.flags;
  const auto is_wide = [](const std::string& type) { return type == "f16" || type == "bf16" || type == "f32"; };
  const auto add = [&](const char* type, double loss, const char* loses) {
    auto rung = change(subject, Change::Kind::cache_type, loss);
    rung.cache_type = type;
    rung.text = fmt::format("keep the keys and values of '{}' as {} instead of {}", rung.service, type, flags.cache_k);
    rung.edit = subject.service->extra_args.empty()
                    ? fmt::format("extra_args: [--cache-type-k, {0}, --cache-type-v, {0}]", type)
                    : fmt::format("--cache-type-k {0} --cache-type-v {0} at the end of extra_args", type);
    rung.loses = loses;
    ladder.rungs.push_back(std::move(rung));
  };
  if (is_wide(flags.cache_k) && is_wide(flags.cache_v)) add("q8_0", 10, "hardly anything");
  if (flags.cache_k != "q4_0" && flags.cache_v != "q4_0") add("q4_0", 35, "some quality over long contexts");
  return ladder;
}

/// A vLLM claims its share whatever its model needs, so a smaller share is the first thing to give back.
Ladder smaller_shares(const Subject& subject, const std::vector<GpuSample>& gpus) {
  Ladder ladder{{}, true};
  const auto share = share_of(*subject.service);
  if (!share || !subject.model) return ladder;
  const double now = *share;
  Bytes largest;
  for (const auto& gpu : gpus)
    largest = std::max(largest, gpu.total.value_or(Bytes()));
  if (largest == Bytes()) return ladder;
  auto flags = vllm_flags_of(*subject.service, subject.words, largest);
  if (!flags) return ladder;
  for (int percent = 95; percent >= 5; percent -= 5) {
    if (percent >= now * 100 - 0.5) continue;  // 0.55 is a little more than 55 hundredths
    // On a smaller GPU the same share may be too little: that is asked again where it is placed.
    flags->utilization = percent / 100.0;
    const auto inside = estimate_vllm(*subject.model, *flags);
    if (!inside || inside->fits != true) break;
    auto rung = change(subject, Change::Kind::share, 15 + 10 * (1 - flags->utilization / now));
    rung.utilization = flags->utilization;
    rung.text = fmt::format("let '{}' claim {:.2f} of a GPU instead of {:.2f}", rung.service, flags->utilization, now);
    rung.edit = fmt::format("gpu_memory_utilization: {:.2f}", flags->utilization);
    rung.loses = "fewer requests at once and fewer cached beginnings";
    ladder.rungs.push_back(std::move(rung));
  }
  return ladder;
}

Ladder other_quantizations(const Subject& subject) {
  Ladder ladder{{}, true};
  if (!subject.model || !subject.flags) return ladder;
  const auto now = subject.model->weights;
  auto smaller = subject.others;
  std::erase_if(smaller, [&](const ModelFacts* other) { return other->weights >= now || other->files.empty(); });
  std::sort(smaller.begin(), smaller.end(), [](const auto* a, const auto* b) { return a->weights > b->weights; });
  for (const auto* other : smaller) {
    const double lost = 1 - static_cast<double>(other->weights.count()) / static_cast<double>(now.count());
    auto rung = change(subject, Change::Kind::quantization, 20 + 30 * lost);
    rung.model = other;
    rung.text = fmt::format("run '{}' from {} instead of {}", rung.service, other->files.front().filename().string(),
                            subject.model->files.front().filename().string());
    rung.edit = fmt::format("model: {}", other->files.front().string());
    rung.loses = "some quality of its answers";
    ladder.rungs.push_back(std::move(rung));
  }
  return ladder;
}

Ladder smaller_contexts(const Subject& subject) {
  Ladder ladder{{}, true};
  if (!subject.model || !subject.model->keeps_kv) return ladder;
  const auto* vllm = subject.service->vllm();
  if (!vllm && !subject.flags) return ladder;
  auto now = vllm ? vllm->max_model_len.value_or(0) : subject.flags->context.value_or(0);
  if (now <= 0) now = subject.model->context_length;
  for (const double part : {0.75, 0.5, 0.375, 0.25, 0.125, 0.0625}) {
    const auto tokens = static_cast<std::int64_t>(static_cast<double>(now) * part) / 256 * 256;
    if (tokens < smallest_context) break;
    auto rung = change(subject, Change::Kind::context, 25 + 40 * (1 - part));
    rung.context = tokens;
    rung.text = fmt::format("give '{}' {} tokens of context instead of {}", rung.service, tokens, now);
    rung.edit = fmt::format("{}: {}", vllm ? "max_model_len" : "context_size", tokens);
    rung.loses = fmt::format("what is longer than {} tokens", tokens);
    ladder.rungs.push_back(std::move(rung));
  }
  return ladder;
}

Ladder sleep_of(const Subject& subject) {
  Ladder ladder;
  const auto ability = subject.service->sleep;
  if (ability == SleepAbility::none) return ladder;
  auto rung = change(subject, Change::Kind::sleep, 50);
  rung.residency = ability == SleepAbility::router   ? Residency::unloaded
                   : ability == SleepAbility::level2 ? Residency::sleeping2
                                                     : Residency::sleeping1;
  const bool unloads = ability == SleepAbility::router;
  rung.text = fmt::format("{} '{}'{}", unloads ? "leave" : "let", rung.service, unloads ? " unloaded" : " sleep");
  rung.loses = fmt::format("the time until it is {}, whenever it is asked", unloads ? "loaded" : "awake");
  ladder.rungs.push_back(std::move(rung));
  return ladder;
}

Ladder experts_in_host_memory(const Subject& subject) {
  Ladder ladder{{}, true};
  if (!subject.flags || !subject.model || !subject.model->experts || subject.flags->cpu_moe) return ladder;
  const int layers = static_cast<int>(subject.model->layers.size()), now = subject.flags->n_cpu_moe;
  const int stride = std::max(1, (layers + 7) / 8);
  for (int count = now + stride; count < layers + stride; count += stride) {
    const int moved = std::min(count, layers);
    auto rung = change(subject, Change::Kind::experts, 55 + 20.0 * moved / layers);
    rung.cpu_experts = moved;
    rung.text =
        fmt::format("keep the experts of {} layers of '{}' in host memory instead of {}", moved, rung.service, now);
    rung.edit = fmt::format("n_cpu_moe: {}", moved);
    rung.loses = "speed";
    ladder.rungs.push_back(std::move(rung));
  }
  return ladder;
}

Ladder fewer_layers(const Subject& subject) {
  Ladder ladder{{}, true};
  if (!subject.flags || !subject.model || subject.model->layers.empty()) return ladder;
  const int all = static_cast<int>(subject.model->layers.size()) + 1;  // the output is one
  const int asked = subject.flags->gpu_layers.value_or(-1);
  const int now = asked < 0 ? all : std::min(asked, all);
  const int stride = std::max(1, (now + static_cast<int>(most_rungs) - 1) / static_cast<int>(most_rungs));
  for (int count = now - stride; count > 0; count -= stride) {
    auto rung = change(subject, Change::Kind::layers, 60 + 30.0 * (now - count) / all);
    rung.gpu_layers = count;
    rung.text = fmt::format("keep {} layers of '{}' on the GPU instead of {}", count, rung.service, now);
    rung.edit = fmt::format("gpu_layers: {}", count);
    rung.loses = "most of its speed";
    ladder.rungs.push_back(std::move(rung));
  }
  return ladder;
}

Ladder without_it(const Subject& subject) {
  Ladder ladder;
  if (!subject.optional) return ladder;
  auto rung = change(subject, Change::Kind::drop, 100);
  rung.text = fmt::format("leave '{}' out: the mode calls it optional", rung.service);
  rung.loses = "all of it";
  ladder.rungs.push_back(std::move(rung));
  return ladder;
}

/// Of a llama-server: with it, it takes something else on whichever GPU.
bool changes_memory(Change::Kind kind) {
  return kind != Change::Kind::gpu && kind != Change::Kind::sleep && kind != Change::Kind::drop;
}

class Finder {
 public:
  Finder(const std::vector<Ladder>& ladders, const Trial& trial) : ladders_(ladders), trial_(trial) {}

  std::vector<Alternative> run(std::size_t most) {
    for (const auto& ladder : ladders_) {
      if (ladder.falling)
        take_first_by_halving(ladder);
      else
        for (const auto& rung : ladder.rungs)
          take({rung});
    }
    if (found_.empty()) try_pairs();
    std::stable_sort(found_.begin(), found_.end(), [](const auto& a, const auto& b) { return a.loss < b.loss; });
    if (found_.size() > most) found_.resize(most);
    return std::move(found_);
  }

 private:
  void take(std::vector<Change> changes) {
    if (trial_(changes)) keep(std::move(changes));
  }

  void keep(std::vector<Change> changes) {
    double loss = 0;
    for (const auto& each : changes)
      loss += each.loss;
    found_.push_back({std::move(changes), loss});
  }

  void take_first_by_halving(const Ladder& ladder) {
    std::size_t low = 0, high = ladder.rungs.size();  // those below `low` do not fit, those from `high` on do
    while (low < high) {
      const auto middle = low + (high - low) / 2;
      if (trial_({ladder.rungs[middle]}))
        high = middle;
      else
        low = middle + 1;
    }
    if (high < ladder.rungs.size()) keep({ladder.rungs[high]});
  }

  /// Two services that both give way, or one that gives way twice. The first few that help, by what they cost.
  void try_pairs() {
    std::vector<std::pair<std::size_t, Change>> samples;
    for (std::size_t i = 0; i < ladders_.size(); ++i) {
      const auto& rungs = ladders_[i].rungs;
      if (rungs.empty()) continue;
      for (const std::size_t at : std::set<std::size_t>{0, rungs.size() / 2, rungs.size() - 1})
        samples.emplace_back(i, rungs[at]);
    }
    std::vector<std::vector<Change>> pairs;
    for (const auto& [one_ladder, one] : samples)
      for (const auto& [other_ladder, other] : samples)
        if (one_ladder < other_ladder && go_together(one, other)) pairs.push_back({one, other});
    std::stable_sort(pairs.begin(), pairs.end(),
                     [](const auto& a, const auto& b) { return a[0].loss + a[1].loss < b[0].loss + b[1].loss; });
    int tried = 0;
    for (auto& pair : pairs) {
      if (++tried > most_pairs || found_.size() >= 3) return;
      take(std::move(pair));
    }
  }

  /// Who is gone or asleep has nothing else to give.
  static bool go_together(const Change& one, const Change& other) {
    if (one.service != other.service) return true;
    const auto ends_it = [](const Change& each) {
      return each.kind == Change::Kind::sleep || each.kind == Change::Kind::drop;
    };
    return !ends_it(one) && !ends_it(other);
  }

  const std::vector<Ladder>& ladders_;
  const Trial& trial_;
  std::vector<Alternative> found_;
};

}  // namespace

std::string_view to_string(Change::Kind kind) {
  switch (kind) {
    case Change::Kind::gpu: return "gpu";
    case Change::Kind::cache_type: return "cache_type";
    case Change::Kind::share: return "share";
    case Change::Kind::quantization: return "quantization";
    case Change::Kind::context: return "context";
    case Change::Kind::sleep: return "sleep";
    case Change::Kind::experts: return "experts";
    case Change::Kind::layers: return "layers";
    case Change::Kind::drop: return "drop";
  }
  return "";
}

std::vector<Ladder> ladders_for(const Subject& subject, const std::vector<GpuSample>& gpus) {
  std::vector<Ladder> ladders{sleep_of(subject), without_it(subject)};
  // What people's own unit runs with is not ours to write.
  if (subject.service->unit.empty()) {
    ladders.push_back(other_gpus(subject, gpus));
    ladders.push_back(smaller_caches(subject));
    ladders.push_back(smaller_shares(subject, gpus));
    ladders.push_back(other_quantizations(subject));
    ladders.push_back(smaller_contexts(subject));
    ladders.push_back(experts_in_host_memory(subject));
    ladders.push_back(fewer_layers(subject));
  }
  // What a flag does not reach on the first rung, it does not reach on the others.
  std::erase_if(ladders, [&](const Ladder& ladder) {
    return ladder.rungs.empty() || !takes_effect(subject, ladder.rungs.front());
  });
  if (subject.flags && subject.service->vram)
    for (auto& ladder : ladders)
      for (auto& rung : ladder.rungs)
        if (changes_memory(rung.kind)) rung.edit += "; and remove vram:, which speaks of what it takes now";
  return ladders;
}

std::vector<Alternative> find_alternatives(const std::vector<Ladder>& ladders, const Trial& trial, std::size_t most) {
  return Finder(ladders, trial).run(most);
}

}  // namespace gpumod
