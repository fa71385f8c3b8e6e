#include "faces/mcp/gpumod_offer.h"

#include <algorithm>

#include <boost/json.hpp>
#include <fmt/format.h>

#include "base/text.h"
#include "faces/cli/render.h"
#include "faces/cli/run.h"
#include "faces/mcp/resources.h"
#include "verbs/change_record.h"

namespace gpumod::mcp {

namespace json = boost::json;

namespace {

/// A person may think about it for so long.
constexpr Duration consent_lasts = 600s;
constexpr std::size_t most_consents = 64;
constexpr std::size_t longest_text = 24'000;

std::string shortened(std::string text) {
  if (text.size() <= longest_text) return text;
  auto end = longest_text;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80)
    --end;  // not within a character
  return text.substr(0, end) + "\n… (the rest is in structuredContent)\n";
}

json::object content(std::string text) {
  return {{"type", "text"}, {"text", std::move(text)}};
}

const Verb* verb_named(std::string_view name) {
  const auto found = find_verb(name);
  return found ? *found : nullptr;
}

/// "switch_mode rag": for people.
std::string in_words(const Tool& tool, const json::object& request) {
  std::string words = fmt::format("gpumod {}", tool.verb->name);
  for (const auto& parameter : tool.verb->parameters) {
    const auto* value = request.if_contains(parameter.name);
    if (!value) continue;
    const auto shown = value->is_string() ? std::string(value->get_string()) : json::serialize(*value);
    words += parameter.positional ? fmt::format(" {}", shown) : fmt::format(" --{} {}", parameter.name, shown);
  }
  return printable(words);
}

Error not_allowed(const Tool& tool, AssistantRights rights) {
  return Error{
      ErrorCode::refused,
      fmt::format("assistants may not do this here: {} needs mcp.allow: {}, and it is {}", tool.name,
                  to_string(tool.needs), to_string(rights)),
      tool.can_dry_run()
          ? std::string("A dry run is allowed: dry_run: true. The person can change the setting in gpumod.yaml.")
          : std::string("The person can change the setting in gpumod.yaml."),
      {}};
}

Error too_often(int per_minute, const char* what) {
  return Error{ErrorCode::busy,
               fmt::format("too many {}: {} a minute are allowed", what, per_minute),
               "Wait a minute. The person can change the limit in gpumod.yaml, under mcp:.",
               {}};
}

}  // namespace

struct GpumodOffer::Change {
  CallRef call;
  const Tool* tool = nullptr;
  std::string notes;
  Meter meter;
};

GpumodOffer::GpumodOffer(Hands& hands, Scrubber scrub, std::string version)
    : hands_(hands), scrub_(std::move(scrub)), version_(std::move(version)) {}

const Scrubber& GpumodOffer::scrub() {
  scrub_.learn(hands_.secrets());
  return scrub_;
}

json::object GpumodOffer::server_info() {
  return {{"name", "gpumod"}, {"title", "gpumod"}, {"version", version_}};
}

std::string GpumodOffer::instructions() {
  return instructions_text();
}

json::object GpumodOffer::capabilities() {
  return {{"tools", json::object()}, {"resources", json::object{{"subscribe", true}}}};
}

json::array GpumodOffer::tools() {
  const auto rights = hands_.settings().allow;
  json::array all;
  for (const auto& tool : all_tools())
    if (!is_out_of_reach(tool, rights)) all.push_back(declaration_of(tool, rights));
  return all;
}

json::array GpumodOffer::resources() {
  return resource_list();
}

json::array GpumodOffer::resource_templates() {
  return resource_template_list();
}

bool GpumodOffer::has_resource(const std::string& uri) {
  return resource_question(uri).has_value();
}

void GpumodOffer::call_tool(CallRef call) {
  const auto* tool = find_tool(call->subject());
  if (!tool) {
    std::vector<std::string> known;
    for (const auto& each : all_tools())
      known.push_back(each.name);
    return call->refuse(
        {Code::invalid_params,
         fmt::format("there is no tool '{}'. {}", printable(call->subject()),
                     nearest_names(call->subject(), known).empty() ? std::string("tools/list names them.")
                                                                   : did_you_mean(call->subject(), known)),
         {},
         {}});
  }
  const auto settings = hands_.settings();
  const auto wrong = [&](Error error) { conclude(call, *tool, fail(std::move(error)), {}, nullptr); };
  // A call that comes back with a person's word was counted already.
  const bool again = call->caller().elicits && consents_.contains(call->state());
  if (!again && !calls_.take(call->caller().name, settings.calls_per_minute, hands_.now()))
    return wrong(too_often(settings.calls_per_minute, "calls"));
  auto request = request_of(*tool, call->arguments());
  if (!request) return wrong(request.error());
  if (tool->needs == AssistantRights::read || flag_of(*request, "dry-run"))
    return read(call, *tool, std::move(*request));
  if (settings.allow < tool->needs) return wrong(not_allowed(*tool, settings.allow));
  if (!again && !changes_.take(call->caller().name, settings.changes_per_minute, hands_.now()))
    return wrong(too_often(settings.changes_per_minute, "changes"));
  change(call, *tool, std::move(*request));
}

void GpumodOffer::read(const CallRef& call, const Tool& tool, json::object request) {
  const auto notes = std::make_shared<std::string>();
  hands_.run(
      *tool.verb, std::move(request),
      [notes](const json::object& event) {
        if (text_in(event, "event") == "notice") *notes += fmt::format("note: {}\n", text_in(event, "text"));
      },
      [this, call, &tool, notes](const Result<json::value>& answer) { conclude(call, tool, answer, *notes, nullptr); });
}

void GpumodOffer::change(const CallRef& call, const Tool& tool, json::object request) {
  if (!call->caller().elicits) return carry_out(call, tool, std::move(request));
  std::erase_if(consents_, [now = hands_.now()](const auto& each) { return each.second.until < now; });
  if (call->state().empty()) return ask_first(call, tool, request);
  const auto found = consents_.find(call->state());
  if (found == consents_.end() || found->second.of != tool.name + json::serialize(request))
    return call->refuse(
        {Code::invalid_params, "this requestState is not of this call, or too old: call again without it", {}, {}});
  consents_.erase(found);  // a word counts once
  const auto* word = object_in(call->inputs(), "consent");
  if (!word) return ask_first(call, tool, request);
  const auto* form = object_in(*word, "content");
  const auto* confirmed = form ? form->if_contains("confirm") : nullptr;
  const bool agreed = text_in(*word, "action") == "accept" && (!confirmed || *confirmed == json::value(true));
  if (agreed) return carry_out(call, tool, std::move(request));
  conclude(
      call, tool,
      fail(ErrorCode::cancelled, "the person did not agree, so nothing was done", "Ask them what they want instead."),
      {}, nullptr);
}

/// What cannot be done is said before anybody is asked about it.
void GpumodOffer::ask_first(const CallRef& call, const Tool& tool, const json::object& request) {
  if (!tool.can_dry_run()) return ask(call, tool, request, {});
  auto trial = request;
  trial["dry-run"] = true;
  hands_.run(*tool.verb, std::move(trial), nullptr, [this, call, &tool, request](const Result<json::value>& answer) {
    if (!answer) return conclude(call, tool, answer, {}, nullptr);
    ask(call, tool, request, scrub().text(cli::render(tool.verb->name, *answer, cli::Screen{})));
  });
}

void GpumodOffer::ask(const CallRef& call, const Tool& tool, const json::object& request, const std::string& plan) {
  if (consents_.size() >= most_consents) consents_.erase(consents_.begin());
  const auto state = new_mark() + new_mark();
  consents_[state] = {tool.name + json::serialize(request), hands_.now() + consent_lasts};
  const auto message = fmt::format("{} wants to run: {}\n{}", call->caller().name, in_words(tool, request), plan);
  const json::object form{
      {"type", "object"},
      {"properties",
       json::object{{"confirm", json::object{{"type", "boolean"}, {"title", "Go ahead"}, {"default", true}}}}},
      {"required", json::array{"confirm"}}};
  call->ask(
      {{"consent",
        json::object{{"method", "elicitation/create"},
                     {"params", json::object{{"mode", "form"}, {"message", message}, {"requestedSchema", form}}}}}},
      state);
}

namespace {

/// What a client sends may be long; the record of its changes is not to be pushed out by it.
json::value shortened(const json::value& value) {
  constexpr std::size_t most_characters = 200, most_entries = 20;
  if (const auto* text = value.if_string()) {
    if (text->size() <= most_characters) return value;
    auto end = most_characters;  // not within a character
    while (end > 0 && (static_cast<unsigned char>((*text)[end]) & 0xC0) == 0x80)
      --end;
    return json::value(std::string(text->data(), end) + "…");
  }
  if (const auto* list = value.if_array()) {
    json::array few;
    for (std::size_t i = 0; i < std::min(list->size(), most_entries); ++i)
      few.push_back(shortened((*list)[i]));
    if (list->size() > most_entries) few.push_back("…");
    return few;
  }
  if (const auto* object = value.if_object()) {
    json::object same;
    for (const auto& [name, inner] : *object)
      same[name] = shortened(inner);
    return same;
  }
  return value;
}

}  // namespace

void GpumodOffer::carry_out(const CallRef& call, const Tool& tool, json::object request) {
  const json::object about{{"client", call->caller().name},
                           {"version", call->caller().version},
                           {"tool", tool.name},
                           {"request", shortened(scrub().value(request))}};
  if (const auto written = hands_.record(record_of_begin(about)); !written) {
    Error error = written.error();
    error.message = fmt::format("nothing was done, for it could not be recorded: {}", error.message);
    return conclude(call, tool, fail(std::move(error)), {}, nullptr);
  }
  const auto change = std::make_shared<Change>();
  change->call = call;
  change->tool = &tool;
  under_way_.push_back(change);
  const auto on_event = [this, change](const json::object& event) {
    if (text_in(event, "event") == "notice") change->notes += fmt::format("note: {}\n", text_in(event, "text"));
    if (const auto reading = change->meter.on_event(event, hands_.now()))
      change->call->progress(reading->percent, 100, scrub().text(reading->words));
  };
  const auto done = [this, change](const Result<json::value>& answer) {
    under_way_.remove(change);
    change->call->on_cancel = nullptr;
    tell_end(change, answer);
    look_for_changes();
  };
  if (tool.verb->effect != Verb::Effect::mutates)
    return hands_.run(*tool.verb, std::move(request), on_event, [this, about, done](const Result<json::value>& answer) {
      (void)hands_.record(record_of_end(about, answer));
      done(answer);
    });
  auto take_back = hands_.run_in_worker(*tool.verb, std::move(request), about, on_event, done);
  // It may be done already: then there is nothing to take back.
  if (std::find(under_way_.begin(), under_way_.end(), change) != under_way_.end())
    call->on_cancel = std::move(take_back);
}

/// What was asked for is one thing; what is there now is looked at.
void GpumodOffer::tell_end(const std::shared_ptr<Change>& change, const Result<json::value>& answer) {
  const auto* look = verb_named("mode status");
  if (change->tool->needs != AssistantRights::switch_ || !look)
    return conclude(change->call, *change->tool, answer, change->notes, nullptr);
  hands_.run(*look, {}, nullptr, [this, change, answer](const Result<json::value>& seen) {
    conclude(change->call, *change->tool, answer, change->notes, seen ? *seen : json::value(nullptr));
  });
}

void GpumodOffer::conclude(const CallRef& call, const Tool& tool, const Result<json::value>& answer,
                           const std::string& notes, json::value now) {
  json::object structured;
  std::string text;
  bool quotes = tool.quotes;
  if (answer) {
    text = cli::render(tool.verb->name, *answer, cli::Screen{});
    structured = answer->is_object() ? answer->get_object() : json::object();
  } else {
    const auto error = for_assistants(answer.error());
    quotes = quotes || !error.details.is_null();  // why a service did not start is often a line of its log
    text = cli::render_report(error, cli::Screen{}) + cli::render_error(error, cli::Screen{});
    structured = cli::error_document(error);
  }
  if (!now.is_null()) {
    text += fmt::format("Now: {}", cli::render("mode status", now, cli::Screen{}));
    structured["now"] = std::move(now);
  }
  text = shortened(scrub().text(text + notes));
  if (quotes) text = quoted(text, new_mark());
  if (!answer) {
    const auto next = tools_after(answer.error(), tool);
    if (!next.empty()) text += fmt::format("Try next: {}.\n", join(next, ", "));
    structured["next"] = json::value_from(next);
  }
  json::object result{{"content", json::array{content(std::move(text))}},
                      {"structuredContent", scrub().value(structured)}};
  if (!answer) result["isError"] = true;
  call->finish(std::move(result));
}

void GpumodOffer::read_resource(CallRef call) {
  const auto uri = call->subject();
  const auto give = [call, uri](std::string_view type, std::string text) {
    call->finish(
        {{"contents", json::array{json::object{{"uri", uri}, {"mimeType", type}, {"text", std::move(text)}}}}});
  };
  const auto none = [call, uri](std::string words) {
    call->refuse({Code::resource_not_found, std::move(words), json::object{{"uri", uri}}, {}});
  };
  auto question = resource_question(uri);
  if (!question) return none("there is no such resource: resources/list names them");
  if (!question->verb) return give("text/plain", help_text());
  if (!calls_.take(call->caller().name, hands_.settings().calls_per_minute, hands_.now()))
    return call->refuse({Code::overloaded, "too many calls: wait a minute", {}, {}});
  hands_.run(*question->verb, std::move(question->request), nullptr, [=, this](const Result<json::value>& answer) {
    if (answer) return give("application/json", json::serialize(scrub().value(*answer)));
    // Files that have problems are what whoever reads the configuration wants to know.
    if (answer.error().code == ErrorCode::configuration && !answer.error().details.is_null())
      return give("application/json", json::serialize(scrub().value(answer.error().details)));
    const auto words = scrub().text(fmt::format("{}. {}", answer.error().message, answer.error().hint));
    if (answer.error().code == ErrorCode::not_found) return none(words);
    call->refuse({Code::internal_error, words, {}, {}});
  });
}

bool GpumodOffer::has_to_tick() const {
  return !under_way_.empty() || (followed && !followed().empty());
}

void GpumodOffer::tick() {
  for (const auto& change : under_way_)
    if (const auto reading = change->meter.on_tick(hands_.now()))
      change->call->progress(reading->percent, 100, scrub().text(reading->words));
  look_for_changes();
}

void GpumodOffer::look_for_changes() {
  const auto uris = followed ? followed() : std::set<std::string>();
  std::erase_if(last_seen_, [&](const auto& seen) { return !uris.contains(seen.first); });
  for (const auto& uri : uris) {
    auto question = resource_question(uri);
    if (!question || !question->verb || !being_read_.insert(uri).second) continue;
    hands_.run(*question->verb, std::move(question->request), nullptr, [this, uri](const Result<json::value>& answer) {
      being_read_.erase(uri);
      auto seen = answer ? json::serialize(*answer) : answer.error().message;
      const auto [before, is_first] = last_seen_.try_emplace(uri, seen);
      if (is_first || before->second == seen) return;
      before->second = std::move(seen);
      if (on_changed) on_changed(uri);
    });
  }
}

}  // namespace gpumod::mcp
