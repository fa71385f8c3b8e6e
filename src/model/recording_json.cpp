#include "model/recording_json.h"

#include <cmath>
#include <ctime>

#include <boost/json.hpp>

#include "model/json.h"

namespace gpumod {

namespace json = boost::json;

namespace {

/// To the millisecond: nothing here is known better.
double in_seconds(Duration d) {
  return static_cast<double>(std::chrono::round<std::chrono::milliseconds>(d).count()) / 1000.0;
}
json::value seconds_or_null(const std::optional<Duration>& d) {
  return d ? json::value(in_seconds(*d)) : json::value(nullptr);
}

json::object to_json(const Recording::Step& step) {
  json::array phases, troubles;
  for (const auto& phase : step.phases)
    phases.push_back(json::object{{"name", to_string(phase.name)},
                                  {"attempt", phase.attempt},
                                  {"from", in_seconds(phase.from)},
                                  {"until", in_seconds(phase.until)}});
  for (const auto& trouble : step.troubles)
    troubles.push_back(json::object{{"attempt", trouble.attempt},
                                    {"at", in_seconds(trouble.at)},
                                    {"cause", trouble.cause},
                                    {"remedy", trouble.remedy},
                                    {"log", json::value_from(trouble.log)}});
  const auto took = step.began && step.ended ? std::optional(*step.ended - *step.began) : std::nullopt;
  return {{"step", step.step},
          {"action", to_string(step.action)},
          {"subject", step.subject},
          {"service", text_or_null(step.service)},
          {"unit", step.unit},
          {"undo", step.undo},
          {"result", step.result},
          {"attempts", step.attempts},
          {"began", seconds_or_null(step.began)},
          {"ended", seconds_or_null(step.ended)},
          {"seconds", seconds_or_null(took)},
          {"predicted_seconds", seconds_or_null(step.predicted)},
          {"note", step.note},
          {"after", json::value_from(step.after)},
          {"phases", std::move(phases)},
          {"troubles", std::move(troubles)}};
}

/// Reads members that may be missing, or of another kind.
class Fields {
 public:
  explicit Fields(const json::value& value) : object_(value.if_object()) {}

  const json::value* find(std::string_view key) const { return object_ ? object_->if_contains(key) : nullptr; }
  std::string text(std::string_view key) const {
    const auto* found = find(key);
    return found && found->is_string() ? std::string(found->as_string()) : std::string();
  }
  std::optional<double> number(std::string_view key) const {
    const auto* found = find(key);
    return found && found->is_number() ? std::optional(found->to_number<double>()) : std::nullopt;
  }
  std::optional<std::int64_t> integer(std::string_view key) const {
    const auto* found = find(key);
    return found && found->is_int64() ? std::optional(found->get_int64()) : std::nullopt;
  }
  int whole(std::string_view key, int otherwise = 0) const {
    return static_cast<int>(integer(key).value_or(otherwise));
  }
  bool truth(std::string_view key) const {
    const auto* found = find(key);
    return found && found->is_bool() && found->get_bool();
  }
  std::optional<Duration> duration(std::string_view key) const {
    const auto amount = number(key);
    if (!amount || !(std::abs(*amount) < 1e9)) return std::nullopt;
    return std::chrono::round<Duration>(std::chrono::duration<double>(*amount));
  }
  std::optional<Bytes> bytes(std::string_view key) const {
    const auto amount = integer(key);
    return amount ? std::optional(Bytes(*amount)) : std::nullopt;
  }
  const json::array& elements(std::string_view key) const {
    static const json::array none;
    const auto* found = find(key);
    return found && found->is_array() ? found->get_array() : none;
  }
  std::vector<std::string> texts(std::string_view key) const {
    std::vector<std::string> all;
    for (const auto& one : elements(key))
      if (one.is_string()) all.emplace_back(one.as_string());
    return all;
  }

 private:
  const json::object* object_;
};

template <typename Enum>
Enum named(const std::string& name, std::initializer_list<Enum> all, Enum otherwise) {
  for (const auto one : all)
    if (name == to_string(one)) return one;
  return otherwise;
}

Action action_from(const std::string& name) {
  return named(name,
               {Action::start, Action::stop, Action::load, Action::unload, Action::sleep, Action::wake, Action::verify},
               Action::verify);
}

SwitchResult result_from(const std::string& name) {
  using R = SwitchResult;
  return named(name, {R::committed, R::rolled_back, R::failed, R::refused, R::unchanged, R::cancelled, R::running},
               R::running);
}

Recording::Step step_from(const Fields& fields) {
  using S = Recording::Stage;
  Recording::Step step;
  step.step = fields.whole("step");
  step.action = action_from(fields.text("action"));
  step.subject = fields.text("subject");
  step.service = fields.text("service");
  step.unit = fields.text("unit");
  step.undo = fields.truth("undo");
  step.result = fields.text("result");
  step.attempts = fields.whole("attempts");
  step.began = fields.duration("began");
  step.ended = fields.duration("ended");
  step.predicted = fields.duration("predicted_seconds");
  step.note = fields.text("note");
  for (const auto& earlier : fields.elements("after"))
    if (earlier.is_int64()) step.after.push_back(static_cast<int>(earlier.get_int64()));
  for (const auto& each : fields.elements("phases")) {
    const Fields phase(each);
    step.phases.push_back(
        {named(phase.text("name"), {S::memory, S::act, S::ready, S::verify, S::fall, S::release, S::kill, S::clear},
               S::act),
         phase.whole("attempt", 1), phase.duration("from").value_or(Duration{}),
         phase.duration("until").value_or(Duration{})});
  }
  for (const auto& each : fields.elements("troubles")) {
    const Fields trouble(each);
    step.troubles.push_back({trouble.whole("attempt", 1), trouble.duration("at").value_or(Duration{}),
                             trouble.text("cause"), trouble.text("remedy"), trouble.texts("log")});
  }
  return step;
}

Recording::Wait wait_from(const Fields& fields) {
  using F = Recording::Wait::For;
  return {fields.whole("step"), named(fields.text("for"), {F::turn, F::memory, F::release}, F::memory),
          fields.text("cause"), fields.duration("from").value_or(Duration{}),
          fields.duration("until").value_or(Duration{})};
}

Recording::Point point_from(const Fields& fields) {
  Recording::Point point;
  point.at = fields.duration("at").value_or(Duration{});
  point.gpu = fields.whole("gpu");
  point.used = fields.bytes("used");
  point.unheld = fields.bytes("unheld");
  if (const auto* held = fields.find("held"); held && held->is_object())
    for (const auto& [name, amount] : held->get_object())
      if (amount.is_int64()) point.held[name] = Bytes(amount.get_int64());
  return point;
}

/// RFC 3339 in UTC, as format_wall writes it.
WallTime wall_from(const std::string& text) {
  std::tm parts{};
  if (!::strptime(text.c_str(), "%Y-%m-%dT%H:%M:%SZ", &parts)) return {};
  return WallTime(std::chrono::seconds(::timegm(&parts)));
}

}  // namespace

json::object to_json(const Recording& recording) {
  json::array steps, waits, gpus, curve;
  for (const auto& step : recording.steps)
    steps.push_back(to_json(step));
  for (const auto& wait : recording.waits)
    waits.push_back(json::object{{"step", wait.step},
                                 {"for", to_string(wait.what)},
                                 {"cause", wait.cause},
                                 {"from", in_seconds(wait.from)},
                                 {"until", in_seconds(wait.until)}});
  for (const auto& gpu : recording.gpus)
    gpus.push_back(json::object{{"index", gpu.index},
                                {"name", gpu.name},
                                {"total", bytes_or_null(gpu.total)},
                                {"predicted_peak", bytes_or_null(gpu.predicted_peak)},
                                {"peak", bytes_or_null(gpu.peak)}});
  for (const auto& point : recording.curve) {
    json::object held;
    for (const auto& [name, amount] : point.held)
      held[name] = amount.count();
    curve.push_back(json::object{{"at", in_seconds(point.at)},
                                 {"gpu", point.gpu},
                                 {"used", bytes_or_null(point.used)},
                                 {"held", std::move(held)},
                                 {"unheld", bytes_or_null(point.unheld)}});
  }
  json::value failure;
  if (recording.failure)
    failure =
        json::object{{"cause", recording.failure->cause},
                     {"remedy", recording.failure->remedy},
                     {"step", recording.failure->step ? json::value(*recording.failure->step) : json::value(nullptr)}};
  return {{"id", recording.id},
          {"kind", recording.kind},
          {"from", text_or_null(recording.from)},
          {"to", text_or_null(recording.to)},
          {"began", format_wall(recording.began)},
          {"seconds", in_seconds(recording.took)},
          {"predicted_seconds", seconds_or_null(recording.predicted)},
          {"result", to_string(recording.result)},
          {"partial", recording.partial},
          {"failure", std::move(failure)},
          {"steps", std::move(steps)},
          {"waits", std::move(waits)},
          {"gpus", std::move(gpus)},
          {"curve", std::move(curve)}};
}

Result<Recording> recording_from_json(const json::value& value) {
  if (!value.is_object()) return fail(ErrorCode::failed, "a stored recording is not readable");
  const Fields fields(value);
  Recording recording;
  recording.id = fields.integer("id").value_or(0);
  recording.kind = fields.text("kind");
  recording.from = fields.text("from");
  recording.to = fields.text("to");
  recording.began = wall_from(fields.text("began"));
  recording.took = fields.duration("seconds").value_or(Duration{});
  recording.predicted = fields.duration("predicted_seconds");
  recording.result = result_from(fields.text("result"));
  recording.partial = fields.truth("partial");
  if (const auto* failure = fields.find("failure"); failure && failure->is_object()) {
    const Fields of(*failure);
    recording.failure = Recording::Failure{of.text("cause"), of.text("remedy"), std::nullopt};
    if (const auto step = of.integer("step")) recording.failure->step = static_cast<int>(*step);
  }
  for (const auto& step : fields.elements("steps"))
    recording.steps.push_back(step_from(Fields(step)));
  for (const auto& wait : fields.elements("waits"))
    recording.waits.push_back(wait_from(Fields(wait)));
  for (const auto& each : fields.elements("gpus")) {
    const Fields gpu(each);
    recording.gpus.push_back(
        {gpu.whole("index"), gpu.text("name"), gpu.bytes("total"), gpu.bytes("predicted_peak"), gpu.bytes("peak")});
  }
  for (const auto& point : fields.elements("curve"))
    recording.curve.push_back(point_from(Fields(point)));
  return recording;
}

}  // namespace gpumod
