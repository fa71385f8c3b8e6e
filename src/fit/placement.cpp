#include "fit/placement.h"

#include <algorithm>
#include <numeric>
#include <set>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/text.h"
#include "fit/claim.h"

namespace gpumod {

namespace json = boost::json;

namespace {

/// How many partial assignments are looked at. Two thousand take some milliseconds; five services on three GPUs have
/// 364 at most.
constexpr int most_looks = 2000;
/// Up to so many GPUs, every set of a tensor-parallel service is tried: 8 over 4 are 70.
constexpr std::size_t most_gpus_for_all_sets = 8;

using Position = std::size_t;  // in the list of GPUs
/// Free on each GPU, by position; unset where nobody knows.
using Rooms = std::vector<std::optional<Bytes>>;

/// One way to place one service.
struct Choice {
  std::vector<Position> gpus;
  std::vector<std::optional<Bytes>> claim;  ///< beside `gpus`
  bool unequal = false;                     ///< a set over different GPUs
};

/// What is asked for, looked up once.
struct Asking {
  const RoomWanted* wanted = nullptr;
  std::size_t index = 0;  ///< in the caller's list
  std::vector<Position> open;
  std::vector<std::optional<Bytes>> claim;  ///< by position
  std::vector<ClaimSource> source;          ///< by position
  std::size_t count = 0;                    ///< of GPUs it takes; 0: none
  bool settled = false;                     ///< there is one way only
  Bytes weight;                             ///< its claims together, for "the largest first"
};

/// How good a whole assignment is: less is better.
struct Score {
  int unequal_sets = 0;
  std::vector<Bytes> holes;  ///< the largest first

  bool better_than(const Score& other) const {
    if (unequal_sets != other.unequal_sets) return unequal_sets < other.unequal_sets;
    return holes > other.holes;
  }
};

Score score_of(int unequal_sets, const Rooms& rooms) {
  Score score{unequal_sets, {}};
  for (const auto& room : rooms)
    if (room) score.holes.push_back(*room);
  std::sort(score.holes.rbegin(), score.holes.rend());
  return score;
}

bool equal_gpus(const GpuSample& one, const GpuSample& other) {
  return one.name == other.name && one.total == other.total;
}

class Search {
 public:
  Search(const std::vector<GpuSample>& gpus, const std::map<GpuIndex, Bytes>& free, const Footprints& known)
      : gpus_(gpus), known_(known) {
    for (const auto& gpu : gpus) {
      const auto room = free.find(gpu.index);
      rooms_.push_back(room == free.end() ? std::nullopt : std::optional(room->second));
    }
  }

  Result<std::vector<Place>> run(const std::vector<RoomWanted>& wanted) {
    for (const auto& each : wanted)
      askings_.push_back(TRY(asking_of(each, askings_.size())));
    // Who has no choice goes first, so that nobody with one takes its room.
    std::stable_sort(askings_.begin(), askings_.end(), [](const Asking& a, const Asking& b) {
      return a.settled != b.settled ? a.settled : a.weight > b.weight;
    });
    path_.resize(askings_.size());
    auto first = take_tightest();
    const bool has_choice = std::any_of(askings_.begin(), askings_.end(), [](const auto& a) { return !a.settled; });
    if (has_choice && askings_.size() > 1 && (first || lacks_memory(first.error()))) {
      find_interchangeable();
      descend(0, rooms_, 0);
    }
    if (best_) return places();
    return fail(std::move(first).error());
  }

 private:
  Result<Asking> asking_of(const RoomWanted& wanted, std::size_t index) const {
    Asking asking;
    asking.wanted = &wanted;
    asking.index = index;
    asking.claim.resize(gpus_.size());
    asking.source.resize(gpus_.size(), ClaimSource::unknown);
    const Service& service = *wanted.service;
    if (!wanted.given.empty()) {
      for (Position at = 0; at < gpus_.size(); ++at)
        if (const auto given = wanted.given.find(gpus_[at].index); given != wanted.given.end()) {
          asking.open.push_back(at);
          asking.claim[at] = given->second;
        }
      asking.count = asking.open.size();
    } else if (service.vram != Bytes(0) && !gpus_.empty()) {
      asking.open = TRY(selected(service));
      for (const auto at : asking.open) {
        const auto claim = claim_of(service, footprint_of(known_, service.id), gpus_[at]);
        asking.claim[at] = claim.bytes;
        asking.source[at] = claim.source;
      }
      asking.count = asking.open.empty() ? 0 : count_of(wanted, asking.open.size());
      if (asking.open.size() < asking.count) return fail(too_few(service, asking.open.size()));
    }
    asking.settled = asking.count >= asking.open.size();
    Bytes largest;
    for (const auto& claim : asking.claim)
      largest = std::max(largest, claim.value_or(Bytes()));
    asking.weight = Bytes(largest.count() * static_cast<std::int64_t>(asking.count));
    return asking;
  }

  Result<std::vector<Position>> selected(const Service& service) const {
    std::vector<Position> chosen;
    if (service.gpu.any()) {
      // A set spans whole GPUs: a process sees one slice of MIG at most.
      for (Position at = 0; at < gpus_.size(); ++at)
        if (is_for_anybody(gpus_[at], gpus_) && (set_size(service) <= 1 || !gpus_[at].is_instance()))
          chosen.push_back(at);
      if (chosen.empty() && needs_gpu(service)) return fail(in_slices(service, gpus_.front()));
      return chosen;
    }
    for (const auto& device : service.gpu.devices) {
      const auto match = std::find_if(gpus_.begin(), gpus_.end(),
                                      [&](const GpuSample& gpu) { return names(GpuSelector{{device}}, gpu); });
      if (match == gpus_.end() || match->mig == true) return fail(not_there(service, device));
      if (match->is_instance() && service.gpu.devices.size() > 1)
        return fail(ErrorCode::configuration,
                    fmt::format("service '{}' wants {} devices, one of them the MIG slice '{}'", service.id,
                                service.gpu.devices.size(), device),
                    "CUDA gives a process one MIG slice at most: let its gpu: name that slice alone, or whole GPUs.");
      const auto at = static_cast<Position>(match - gpus_.begin());
      if (std::find(chosen.begin(), chosen.end(), at) == chosen.end()) chosen.push_back(at);  // by index and by UUID
    }
    return chosen;
  }

  static std::size_t set_size(const Service& service) {
    return service.vllm() ? static_cast<std::size_t>(gpus_wanted(*service.vllm())) : 1;
  }

  /// Of `open` GPUs. A vLLM of ours uses the first of those it sees, and no more than it wants; of another program, and
  /// of people's own command line, nobody knows that.
  static std::size_t count_of(const RoomWanted& wanted, std::size_t open) {
    const Service& service = *wanted.service;
    const bool all = !service.gpu.any() && (wanted.settled || !service.vllm() || !service.unit.empty());
    return all ? open : set_size(service);
  }

  static Error too_few(const Service& service, std::size_t open) {
    std::vector<std::string> factors;
    const auto add = [&](const char* what, const std::optional<int>& size) {
      if (size.value_or(1) != 1) factors.push_back(fmt::format("{} {}", what, *size));
    };
    const auto& options = *service.vllm();
    add("tensor parallel", options.tensor_parallel_size);
    add("pipeline parallel", options.pipeline_parallel_size);
    add("prefill context parallel", options.prefill_context_parallel_size);
    add("data parallel", options.data_parallel_local ? options.data_parallel_local : options.data_parallel_size);
    Error error{ErrorCode::refused,
                fmt::format("service '{}' wants {} GPUs ({}), ", service.id, set_size(service), join(factors, " × ")),
                {},
                {}};
    error.message +=
        service.gpu.any() ? fmt::format("this machine has {}", open) : fmt::format("and its gpu: names {}", open);
    error.hint = service.gpu.any() ? "Lower these sizes: tensor_parallel_size, or what extra_args say of the others."
                                   : "Let its gpu: name as many, or lower these sizes.";
    return error;
  }

  Error not_there(const Service& service, const std::string& device) const {
    for (const auto& gpu : gpus_) {
      const auto whole = gpu.is_instance() ? gpu.whole : gpu.mig == true ? gpu.uuid : "";
      const bool meant = !whole.empty() && (device == whole || device == std::to_string(index_of_whole(gpu)));
      if (meant) return in_slices(service, gpu);
    }
    std::vector<std::string> known;
    for (const auto& gpu : gpus_)
      known.push_back(gpu.is_instance() ? fmt::format("{} ({})", gpu.uuid, gpu.name)
                                        : fmt::format("{} ({})", gpu.index, gpu.uuid));
    return Error{ErrorCode::configuration,
                 fmt::format("service '{}' wants GPU '{}', which is not there", service.id, device),
                 fmt::format("This machine has: {}.", join(known, ", ")),
                 {}};
  }

  /// A GPU in MIG mode is wanted, or there is nothing else.
  Error in_slices(const Service& service, const GpuSample& gpu) const {
    Error error{ErrorCode::configuration,
                fmt::format("service '{}' cannot run on the whole of GPU {}: it is in MIG mode", service.id,
                            index_of_whole(gpu)),
                {},
                {}};
    std::vector<std::string> slices;
    for (const auto& other : gpus_)
      for (const auto& slice : other.slices)
        if (other.whole == gpu.whole) slices.push_back(fmt::format("{} ({})", slice.uuid, slice.name));
    error.hint = slices.empty()
                     ? "It has no slices that can be seen: make some (nvidia-smi mig -cgi … -C), or turn MIG off."
                     : fmt::format("Let its gpu: name one slice: {}.", join(slices, ", "));
    return error;
  }

  /// GPUs that nobody tells apart: the same kind, open to the same services for the same claims. Two assignments that
  /// only exchange them are one.
  void find_interchangeable() {
    class_of_.resize(gpus_.size());
    for (Position at = 0; at < gpus_.size(); ++at) {
      class_of_[at] = at;
      for (Position earlier = 0; earlier < at; ++earlier) {
        const bool same = equal_gpus(gpus_[earlier], gpus_[at]) &&
                          std::all_of(askings_.begin(), askings_.end(), [&](const Asking& asking) {
                            const auto open_to = [&](Position gpu) {
                              return std::find(asking.open.begin(), asking.open.end(), gpu) != asking.open.end();
                            };
                            return open_to(earlier) == open_to(at) && asking.claim[earlier] == asking.claim[at];
                          });
        if (!same) continue;
        class_of_[at] = class_of_[earlier];
        break;
      }
    }
  }

  /// The ways to place one, the tightest first: those whose figures are known before those whose are not, and of the
  /// latter the GPU with the most room.
  std::vector<Choice> choices(const Asking& asking, const Rooms& rooms) const {
    if (asking.count == 0) return {Choice{}};
    std::vector<Position> fitting;
    for (const auto at : asking.open)
      if (!asking.claim[at] || !rooms[at] || *rooms[at] >= *asking.claim[at]) fitting.push_back(at);
    if (fitting.size() < asking.count) return {};
    std::stable_sort(fitting.begin(), fitting.end(), [&](Position a, Position b) {
      const bool a_known = asking.claim[a] && rooms[a], b_known = asking.claim[b] && rooms[b];
      if (a_known != b_known) return a_known;
      if (a_known) return *rooms[a] - *asking.claim[a] < *rooms[b] - *asking.claim[b];
      return rooms[a].value_or(Bytes()) > rooms[b].value_or(Bytes());
    });
    std::vector<Choice> found;
    for (auto& set : sets_of(fitting, asking.count)) {
      Choice choice;
      for (const auto at : set)
        choice.claim.push_back(rooms[at] ? asking.claim[at] : std::nullopt);
      // Where people listed the GPUs, that they differ is their choice.
      choice.unequal = !asking.settled && std::any_of(set.begin(), set.end(), [&](Position at) {
        return !equal_gpus(gpus_[set.front()], gpus_[at]);
      });
      choice.gpus = std::move(set);
      found.push_back(std::move(choice));
    }
    std::stable_sort(found.begin(), found.end(),
                     [](const Choice& a, const Choice& b) { return a.unequal < b.unequal; });
    return found;
  }

  /// Sets of `count` out of `fitting`, the tightest first. On machines with many GPUs only the tightest of all, and the
  /// tightest of each kind of GPU.
  std::vector<std::vector<Position>> sets_of(const std::vector<Position>& fitting, std::size_t count) const {
    std::vector<std::vector<Position>> sets;
    if (count == 1) {
      for (const auto at : fitting)
        sets.push_back({at});
      return sets;
    }
    if (fitting.size() <= most_gpus_for_all_sets) {
      std::vector<bool> taken(fitting.size(), false);
      std::fill(taken.begin(), taken.begin() + static_cast<long>(count), true);
      do {
        std::vector<Position> set;
        for (std::size_t i = 0; i < fitting.size(); ++i)
          if (taken[i]) set.push_back(fitting[i]);
        sets.push_back(std::move(set));
      } while (std::prev_permutation(taken.begin(), taken.end()));
      return sets;
    }
    sets.emplace_back(fitting.begin(), fitting.begin() + static_cast<long>(count));
    for (const auto kind : fitting) {
      std::vector<Position> set;
      for (const auto at : fitting)
        if (set.size() < count && equal_gpus(gpus_[kind], gpus_[at])) set.push_back(at);
      if (set.size() == count && std::find(sets.begin(), sets.end(), set) == sets.end()) sets.push_back(std::move(set));
    }
    return sets;
  }

  static Rooms after(Rooms rooms, const Choice& choice) {
    for (std::size_t i = 0; i < choice.gpus.size(); ++i)
      if (choice.claim[i] && rooms[choice.gpus[i]]) *rooms[choice.gpus[i]] -= *choice.claim[i];
    return rooms;
  }

  /// One after the other, each where it fits most tightly: the first assignment, or the words of a refusal.
  Result<void> take_tightest() {
    Rooms rooms = rooms_;
    int unequal = 0;
    for (std::size_t depth = 0; depth < askings_.size(); ++depth) {
      auto found = choices(askings_[depth], rooms);
      if (found.empty()) return fail(refusal(askings_[depth], rooms));
      rooms = after(std::move(rooms), found.front());
      unequal += found.front().unequal ? 1 : 0;
      path_[depth] = std::move(found.front());
    }
    best_ = path_;
    best_score_ = score_of(unequal, rooms);
    return {};
  }

  void descend(std::size_t depth, const Rooms& rooms, int unequal) {
    if (depth == askings_.size()) {
      auto score = score_of(unequal, rooms);
      if (best_ && !score.better_than(best_score_)) return;
      best_ = path_;
      best_score_ = std::move(score);
      return;
    }
    // Holes only shrink, so what is no better now never will be.
    if (best_ && !score_of(unequal, rooms).better_than(best_score_)) return;
    if (++looks_ > most_looks || !first_look_at(depth, rooms, unequal)) return;
    for (auto& choice : choices(askings_[depth], rooms)) {
      const auto left = after(rooms, choice);
      const int sets = unequal + (choice.unequal ? 1 : 0);
      path_[depth] = std::move(choice);
      descend(depth + 1, left, sets);
    }
  }

  /// False where this much room, on whichever of equal GPUs, was left to the same services before.
  bool first_look_at(std::size_t depth, const Rooms& rooms, int unequal) {
    std::vector<std::int64_t> key{static_cast<std::int64_t>(depth), unequal};
    std::vector<std::pair<Position, std::int64_t>> sorted;
    for (Position at = 0; at < rooms.size(); ++at)
      sorted.emplace_back(class_of_[at], rooms[at] ? rooms[at]->count() : INT64_MIN);
    std::sort(sorted.begin(), sorted.end());
    for (const auto& [kind, room] : sorted)
      key.push_back(room);
    return seen_.insert(std::move(key)).second;
  }

  Error refusal(const Asking& asking, const Rooms& rooms) const {
    const Service& service = *asking.wanted->service;
    Bytes need;
    std::optional<Position> best;
    bool larger_than_any = true;
    for (const auto at : asking.open) {
      if (!asking.claim[at] || !rooms[at]) {
        larger_than_any = false;
        continue;
      }
      need = std::max(need, *asking.claim[at]);
      if (gpus_[at].total && *asking.claim[at] <= *gpus_[at].total) larger_than_any = false;
      if (*rooms[at] < *asking.claim[at] && (!best || *rooms[at] > *rooms[*best])) best = at;
    }
    Error error{ErrorCode::refused, {}, {}, {}};
    const auto& gpu = gpus_[best.value_or(asking.open.front())];
    const auto room = best ? *rooms[*best] : Bytes();
    error.details = json::object{{"memory", json::object{{"service", service.id},
                                                         {"needs", need.count()},
                                                         {"gpu", gpu.index},
                                                         {"has", std::max(std::int64_t{0}, room.count())}}}};
    if (!asking.wanted->given.empty()) {
      error.message = fmt::format("service '{}' needs {} more of VRAM on {}, which would have only {} to give",
                                  service.id, to_string(asking.claim[*best].value_or(Bytes())), gpu_in_words(gpu.index),
                                  to_string(std::max(Bytes(), room)));
    } else if (larger_than_any) {
      error.message =
          fmt::format("service '{}' needs {} of VRAM: more than any GPU it may use has", service.id, to_string(need));
      error.hint = service.vllm() ? "Lower its gpu_memory_utilization, or give it a smaller model."
                   : service.vram
                       ? "Lower its vram: to what it really takes, or give it a smaller context or quantization."
                       : "Give it a smaller context or quantization, or declare vram: if that is wrong.";
    } else {
      error.message =
          fmt::format("service '{}' needs {} of VRAM, but {} ({}) would have only {} to give", service.id,
                      to_string(need), gpu_in_words(gpu.index), gpu.name, to_string(std::max(Bytes(), room)));
      const auto& estimated = footprint_of(known_, service.id).estimated;
      if (best && asking.source[*best] == ClaimSource::declared && estimated && !estimated->rough)
        error.hint = fmt::format("So much its vram: says; by its model's file and its flags it takes {}.",
                                 to_string(estimated->total()));
    }
    return error;
  }

  std::vector<Place> places() const {
    std::vector<Place> places(askings_.size());
    for (std::size_t depth = 0; depth < askings_.size(); ++depth) {
      const auto& choice = (*best_)[depth];
      auto& place = places[askings_[depth].index];
      for (std::size_t i = 0; i < choice.gpus.size(); ++i) {
        place.gpus.push_back(gpus_[choice.gpus[i]].index);
        if (!choice.claim[i]) continue;
        place.claim[gpus_[choice.gpus[i]].index] = *choice.claim[i];
        place.source = askings_[depth].source[choice.gpus[i]];
      }
      std::sort(place.gpus.begin(), place.gpus.end());
    }
    return places;
  }

  const std::vector<GpuSample>& gpus_;
  const Footprints& known_;
  Rooms rooms_;
  std::vector<Asking> askings_;
  std::vector<Position> class_of_;
  std::vector<Choice> path_;
  std::optional<std::vector<Choice>> best_;
  Score best_score_;
  std::set<std::vector<std::int64_t>> seen_;
  int looks_ = 0;
};

}  // namespace

Result<std::vector<Place>> place_together(const std::vector<GpuSample>& gpus, const std::map<GpuIndex, Bytes>& free,
                                          const std::vector<RoomWanted>& wanted, const Footprints& known) {
  return Search(gpus, free, known).run(wanted);
}

bool lacks_memory(const Error& error) {
  const auto* details = error.details.if_object();
  return details && details->contains("memory");
}

}  // namespace gpumod
