#include "sim/requests.h"

#include <algorithm>
#include <charconv>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <fmt/format.h>

#include "base/text.h"
#include "sim/options.h"

namespace gpumod::sim {

namespace {

constexpr std::size_t remembered_events = 1024;
// NVML's event types, and the XID of a GPU that has fallen off the bus.
constexpr std::uint64_t critical_error_event = 0x8;
constexpr std::uint64_t unavailable_event = 0x4000;
constexpr std::uint64_t off_the_bus = 79;

const std::string ok = "ok\n";

/// The longest wait anybody may ask for: a deadline must not overflow.
constexpr std::int64_t longest_wait_ms = 24 * 3600 * 1000;

bool stands_in(Listing listing, std::string_view list) {
  return to_string(listing) == list || (listing == Listing::both && list != "mps");
}

}  // namespace

/// A request's words, taken one by one.
class Requests::Words {
 public:
  explicit Words(std::string_view line) : rest_(trim(line)) {}

  std::string_view next() {
    const auto end = std::min(rest_.find(' '), rest_.size());
    const auto word = rest_.substr(0, end);
    rest_ = trim(rest_.substr(end));
    return word;
  }
  std::string_view rest() { return std::exchange(rest_, {}); }

  template <typename Number>
  Result<Number> number(std::string_view what) {
    const auto word = next();
    Number value{};
    const auto [end, problem] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (word.empty() || problem != std::errc() || end != word.data() + word.size())
      return fail(ErrorCode::usage, fmt::format("'{}' is no {}", printable(word), what));
    return value;
  }
  Result<void> end() const {
    if (!rest_.empty()) return fail(ErrorCode::usage, fmt::format("'{}' is too much", printable(rest_)));
    return {};
  }

 private:
  std::string_view rest_;
};

Requests::Requests(Setup setup)
    : ledger_(std::move(setup.cards)),
      driver_version_(std::move(setup.driver_version)),
      faults_(std::move(setup.faults)),
      curve_(setup.curve),
      command_of_(std::move(setup.command_of)) {
  ledger_.set_curve(curve_);
}

Requests::Answer Requests::answer(HolderId asker, std::string_view line, TimePoint now) {
  Words words(line);
  const auto verb = words.next();
  auto answer = carry_out(asker, verb, words, now);
  if (answer) return std::move(*answer);
  const Error& error = answer.error();
  const std::string_view code = error.code == ErrorCode::failed        ? "out-of-memory"
                                : error.code == ErrorCode::environment ? "lost"
                                                                       : "usage";
  return fmt::format("error {} {}{}{}\n", code, error.message, error.hint.empty() ? "" : " ", error.hint);
}

Result<Requests::Answer> Requests::carry_out(HolderId asker, std::string_view verb, Words& words, TimePoint now) {
  if (verb == "gpus") {
    std::string uuids;
    for (const Card& card : ledger_.cards())
      uuids += ' ' + card.uuid;
    return fmt::format("ok{}\n", uuids);
  }
  if (verb == "memory") {
    const auto memory = ledger_.memory(TRY(gpu_in(words)), now);
    return fmt::format("ok {} {} {} {}\n", memory.total.count(), memory.reserved.count(), memory.used.count(),
                       memory.free.count());
  }
  if (verb == "allocate") {
    const int gpu = TRY(gpu_in(words));
    const Bytes amount(TRY(words.number<std::int64_t>("amount")));
    if (faults_.is_lost(gpu)) return fail(ErrorCode::environment, fmt::format("CUDA error: GPU {} is lost", gpu));
    TRY(ledger_.allocate(gpu, asker, printable(words.rest()), amount, now));
    return ok;
  }
  if (verb == "release") {
    const int gpu = TRY(gpu_in(words));
    ledger_.release(gpu, asker, printable(words.rest()), now);
    return ok;
  }
  if (verb == "kind") {
    const int gpu = TRY(gpu_in(words));
    const auto word = words.next();
    const auto listing = listing_named(word);
    if (!listing) return fail(ErrorCode::usage, fmt::format("'{}' is none of NVML's lists", printable(word)));
    ledger_.list_as(gpu, asker, *listing);
    return ok;
  }
  if (verb == "wait" || verb == "next") {
    Waiting waiting;
    if (verb == "wait") {
      ForFree free{TRY(gpu_in(words)), {}};
      free.amount = Bytes(TRY(words.number<std::int64_t>("amount")));
      waiting.what = free;
    } else {
      waiting.what = ForEvent{TRY(words.number<std::uint64_t>("number of an event"))};
    }
    const auto patience = TRY(words.number<std::int64_t>("number of milliseconds"));
    TRY(words.end());
    waiting.deadline = now + std::chrono::milliseconds(std::clamp<std::int64_t>(patience, 0, longest_wait_ms));
    if (auto known = answer_now(waiting, now)) return std::move(*known);
    return waiting;
  }
  if (verb == "held") {
    Waiting waiting;
    ForLabel label{TRY(gpu_in(words)), {}};
    const auto patience = TRY(words.number<std::int64_t>("number of milliseconds"));
    label.label = printable(words.rest());
    if (label.label.empty()) return fail(ErrorCode::usage, "a label is missing");
    waiting.what = std::move(label);
    waiting.deadline = now + std::chrono::milliseconds(std::clamp<std::int64_t>(patience, 0, longest_wait_ms));
    if (auto known = answer_now(waiting, now)) return std::move(*known);
    return waiting;
  }
  if (verb == "curve") {
    TRY(set_curve(words));
    return ok;
  }
  if (verb == "fault") {
    TRY(set_fault(words.rest()));
    return ok;
  }
  if (verb == "clear") {
    TRY(faults_.clear(words.rest()));
    return ok;
  }
  if (verb == "xid") {
    const int gpu = TRY(gpu_in(words));
    happened(gpu, critical_error_event, TRY(words.number<std::uint64_t>("XID")));
    return ok;
  }
  if (verb == "position") return fmt::format("ok {}\n", events_so_far_);
  if (verb == "state") return state(now);
  if (verb == "look") return look(now);
  return fail(ErrorCode::usage, fmt::format("there is no request '{}'", printable(verb)));
}

std::optional<std::string> Requests::answer_now(const Waiting& waiting, TimePoint now) const {
  if (const auto* free = std::get_if<ForFree>(&waiting.what)) {
    if (ledger_.memory(free->gpu, now).free >= free->amount) return ok;
    if (now < waiting.deadline) return std::nullopt;
    return fmt::format("error timeout {} are free on GPU {}, not {}\n",
                       gpumod::to_string(ledger_.memory(free->gpu, now).free), free->gpu,
                       gpumod::to_string(free->amount));
  }
  if (const auto* label = std::get_if<ForLabel>(&waiting.what)) {
    for (const auto& entry : ledger_.entries(label->gpu, now))
      if (entry.allocations.contains(label->label)) return ok;
    if (now < waiting.deadline) return std::nullopt;
    return fmt::format("error timeout nobody holds '{}' on GPU {}\n", label->label, label->gpu);
  }
  const auto after = std::get<ForEvent>(waiting.what).after;
  const auto next = std::find_if(events_.begin(), events_.end(), [&](const GpuEvent& e) { return e.number > after; });
  if (next != events_.end()) return fmt::format("ok {} {} {} {}\n", next->number, next->gpu, next->type, next->data);
  if (now < waiting.deadline) return std::nullopt;
  return "error timeout nothing has happened\n";
}

Result<int> Requests::gpu_in(Words& words) const {
  const int gpu = TRY(words.number<int>("index of a GPU"));
  if (!ledger_.has_gpu(gpu)) return fail(ErrorCode::usage, fmt::format("there is no GPU {}", gpu));
  return gpu;
}

Result<void> Requests::set_curve(Words& words) {
  ReleaseCurve curve;
  curve.delay = scaled(TRY(parse_duration(words.next())));
  curve.ramp = scaled(TRY(parse_duration(words.next())));
  const auto kind = words.next();
  if (kind != "listed" && kind != "unlisted") return fail(ErrorCode::usage, "returning memory is listed or unlisted");
  curve.listed = kind == "listed";
  const auto when = words.next();
  if (!when.empty() && when != "always")
    return fail(ErrorCode::usage, fmt::format("'{}' is not 'always'", printable(when)));
  curve.always = when == "always";
  curve_ = curve;
  ledger_.set_curve(curve_);
  return {};
}

Result<void> Requests::set_fault(std::string_view text) {
  const Faults before = faults_;
  TRY(faults_.set(text, static_cast<int>(ledger_.cards().size())));
  for (int gpu = 0; ledger_.has_gpu(gpu); ++gpu) {
    if (!faults_.is_lost(gpu) || before.is_lost(gpu)) continue;
    happened(gpu, critical_error_event, off_the_bus);
    happened(gpu, unavailable_event, 0);
  }
  return {};
}

void Requests::happened(int gpu, std::uint64_t type, std::uint64_t data) {
  events_.push_back({++events_so_far_, gpu, type, data});
  if (events_.size() > remembered_events) events_.pop_front();
}

std::string Requests::look(TimePoint now) const {
  std::string text = fmt::format("driver {}\n", driver_version_);
  for (int gpu = 0; ledger_.has_gpu(gpu); ++gpu) {
    const Card& card = ledger_.cards()[static_cast<std::size_t>(gpu)];
    const auto memory = ledger_.memory(gpu, now);
    const bool lost = faults_.is_lost(gpu) || (card.slice && faults_.is_lost(card.slice->parent));
    text += fmt::format("gpu {} {} {} {} {} {} {} {}\n", gpu, memory.total.count(), memory.reserved.count(),
                        memory.used.count(), memory.free.count(), lost ? 1 : 0, card.uuid, card.name);
    if (card.slice) text += fmt::format("slice {} {} {}\n", gpu, card.slice->parent, card.slice->gpu_instance);
    for (const auto& entry : ledger_.entries(gpu, now))
      for (const std::string_view list : {"compute", "graphics", "mps"})
        if (stands_in(entry.listing, list))
          text += fmt::format("process {} {} {} {} {}\n", gpu, list, entry.holder.pid, entry.bytes.count(),
                              printable(command_of_(entry.holder)));
  }
  for (const auto& [name, value] : faults_.values()) {
    if (name == "slow")
      text += fmt::format("fault slow {}\n", scaled(faults_.slowness()).count());  // nanoseconds by the clock
    else
      text += fmt::format("fault {} {}\n", name, value);
  }
  return text + "end\n";
}

std::string Requests::state(TimePoint now) const {
  namespace json = boost::json;
  json::array gpus;
  for (int gpu = 0; ledger_.has_gpu(gpu); ++gpu) {
    const Card& card = ledger_.cards()[static_cast<std::size_t>(gpu)];
    const auto memory = ledger_.memory(gpu, now);
    json::array holders;
    for (const auto& entry : ledger_.entries(gpu, now)) {
      json::object allocations;
      for (const auto& [label, amount] : entry.allocations)
        allocations[label] = amount.count();
      holders.push_back(json::object{{"pid", entry.holder.pid},
                                     {"command", printable(command_of_(entry.holder))},
                                     {"list", to_string(entry.listing)},
                                     {"bytes", entry.bytes.count()},
                                     {"returning", entry.returning.count()},
                                     {"allocations", std::move(allocations)}});
    }
    gpus.push_back(json::object{{"index", gpu},
                                {"name", card.name},
                                {"uuid", card.uuid},
                                {"total", memory.total.count()},
                                {"reserved", memory.reserved.count()},
                                {"used", memory.used.count()},
                                {"free", memory.free.count()},
                                {"unlisted", ledger_.unlisted(gpu, now).count()},
                                {"lost", faults_.is_lost(gpu)},
                                {"holders", std::move(holders)}});
  }
  json::object faults;
  for (const auto& [name, value] : faults_.values())
    faults[name] = value;
  json::object curve{{"delay_s", seconds(curve_.delay)},
                     {"ramp_s", seconds(curve_.ramp)},
                     {"listed", curve_.listed},
                     {"always", curve_.always}};
  const json::object all{{"driver", driver_version_},
                         {"gpus", std::move(gpus)},
                         {"faults", std::move(faults)},
                         {"curve", std::move(curve)}};
  return json::serialize(all) + '\n';
}

}  // namespace gpumod::sim
