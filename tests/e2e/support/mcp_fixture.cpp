// What the official conformance suite wants to find: tools, resources and prompts of its own, offered by gpumod's protocol
// over a small HTTP server on loopback. Prints its port and serves until its standard input ends.
//
// Not here, for gpumod has nothing of the kind: tools that mirror arguments into headers (x-mcp-header), and streams that
// are taken up again after a break.
#include <cstdio>
#include <thread>

#include <boost/json.hpp>
#include <fmt/format.h>
#include <unistd.h>

#include "base/async.h"
#include "faces/mcp/http_door.h"
#include "faces/mcp/scrub.h"
#include "sim/http_server.h"

namespace {

using namespace gpumod;
using namespace gpumod::mcp;
namespace json = boost::json;

constexpr auto png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";
constexpr auto wav = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA=";
constexpr auto greeting_form = R"({"type":"object","properties":{"name":{"type":"string"}},"required":["name"]})";

json::object text(std::string words) {
  return {{"type", "text"}, {"text", std::move(words)}};
}
json::object image() {
  return {{"type", "image"}, {"data", png}, {"mimeType", "image/png"}};
}
json::object embedded(const char* uri, const char* type, const char* words) {
  return {{"type", "resource"}, {"resource", json::object{{"uri", uri}, {"mimeType", type}, {"text", words}}}};
}
json::object content(json::array parts) {
  return {{"content", std::move(parts)}};
}
json::object elicit(const char* message, std::string_view schema) {
  return {{"method", "elicitation/create"},
          {"params", json::object{{"mode", "form"}, {"message", message}, {"requestedSchema", json::parse(schema)}}}};
}
json::object sample(std::string words, int tokens) {
  json::array messages{json::object{{"role", "user"}, {"content", text(std::move(words))}}};
  return {{"method", "sampling/createMessage"},
          {"params", json::object{{"messages", std::move(messages)}, {"maxTokens", tokens}}}};
}

/// The answer to one question; null: it was not given.
const json::object* given(const CallRef& call, const char* key) {
  return object_in(call->inputs(), key);
}

class Fixture : public Offer {
 public:
  explicit Fixture(Loop& loop) : loop_(loop) {}

  json::object server_info() override { return {{"name", "gpumod-fixture"}, {"version", "1.0.0"}}; }
  std::string instructions() override { return "For conformance tests."; }
  json::object capabilities() override {
    return {{"tools", json::object()},
            {"resources", json::object{{"subscribe", true}}},
            {"prompts", json::object()},
            {"completions", json::object()},
            {"logging", json::object()}};
  }
  json::array tools() override;
  json::array resources() override {
    const auto one = [](const char* uri, const char* type) {
      return json::object{{"uri", uri}, {"name", uri + 7}, {"description", "For tests."}, {"mimeType", type}};
    };
    return {one("test://static-text", "text/plain"), one("test://static-binary", "image/png"),
            one("test://watched-resource", "text/plain")};
  }
  json::array resource_templates() override {
    return {json::object{
        {"uriTemplate", "test://template/{id}/data"}, {"name", "template"}, {"description", "For tests."}}};
  }
  bool has_resource(const std::string& uri) override { return uri.starts_with("test://"); }
  void subscriptions_changed() override {}
  void call_tool(CallRef call) override;
  void read_resource(CallRef call) override;
  bool other(const std::string& method, CallRef call) override;

 private:
  bool call_plain(const CallRef& call);
  bool call_asking(const CallRef& call);
  void get_prompt(const CallRef& call);
  /// What was left with the client, made so that it cannot be changed unnoticed: it is only known here.
  std::string remember(std::string what) {
    auto state = new_mark() + new_mark();
    states_[state] = std::move(what);
    return state;
  }

  Loop& loop_;
  std::map<std::string, std::string> states_;
};

json::array Fixture::tools() {
  json::array all;
  for (const char* name : {"test_simple_text",
                           "test_image_content",
                           "test_audio_content",
                           "test_embedded_resource",
                           "test_multiple_content_types",
                           "test_tool_with_logging",
                           "test_error_handling",
                           "test_tool_with_progress",
                           "test_sampling",
                           "test_elicitation",
                           "test_elicitation_sep1034_defaults",
                           "test_elicitation_sep1330_enums",
                           "test_missing_capability",
                           "test_input_required_result_elicitation",
                           "test_input_required_result_sampling",
                           "test_input_required_result_list_roots",
                           "test_input_required_result_request_state",
                           "test_input_required_result_multiple_inputs",
                           "test_input_required_result_multi_round",
                           "test_input_required_result_tampered_state",
                           "test_input_required_result_capabilities",
                           "test_streaming_elicitation",
                           "test_logging_tool"})
    all.push_back(
        json::object{{"name", name}, {"description", "For tests."}, {"inputSchema", json::object{{"type", "object"}}}});
  all.push_back(json::object{
      {"name", "json_schema_2020_12_tool"}, {"description", "For tests of schemas."}, {"inputSchema", json::parse(R"({
        "$schema":"https://json-schema.org/draft/2020-12/schema","type":"object",
        "$defs":{"address":{"$anchor":"addressDef","type":"object","properties":{"street":{"type":"string"},"city":{"type":"string"}}}},
        "properties":{"name":{"type":"string"},"address":{"$ref":"#/$defs/address"},"contactMethod":{"type":"string","enum":["phone","email"]},"phone":{"type":"string"},"email":{"type":"string"}},
        "allOf":[{"anyOf":[{"required":["phone"]},{"required":["email"]}]}],
        "if":{"properties":{"contactMethod":{"const":"phone"}},"required":["contactMethod"]},
        "then":{"required":["phone"]},"else":{"required":["email"]},
        "additionalProperties":false})")}});
  return all;
}

Task<void> report_progress(CallRef call) {
  // The suite looks at notifications that come one after the other.
  for (const double done : {0.0, 50.0, 100.0}) {
    call->progress(done, 100, "working");
    co_await wait_for(50ms);
  }
  call->finish(content({text("done")}));
}

Task<void> log_some(CallRef call) {
  for (const char* words : {"Tool execution started", "Tool processing data", "Tool execution completed"}) {
    json::object params{{"level", "info"}, {"data", words}};
    call->notify("notifications/message", std::move(params));
    co_await wait_for(50ms);
  }
  call->finish(content({text("done")}));
}

void Fixture::call_tool(CallRef call) {
  if (call->subject() == "test_tool_with_progress") return loop_.spawn(report_progress(call));
  if (call->subject() == "test_tool_with_logging") return loop_.spawn(log_some(call));
  if (call_plain(call) || call_asking(call)) return;
  call->refuse({Code::invalid_params, "there is no such tool", {}, {}});
}

bool Fixture::call_plain(const CallRef& call) {
  const auto& name = call->subject();
  if (name == "test_simple_text" || name == "json_schema_2020_12_tool" || name == "test_logging_tool")
    call->finish(content({text("This is a simple text response for testing.")}));
  else if (name == "test_image_content")
    call->finish(content({image()}));
  else if (name == "test_audio_content")
    call->finish(content({json::object{{"type", "audio"}, {"data", wav}, {"mimeType", "audio/wav"}}}));
  else if (name == "test_embedded_resource")
    call->finish(
        content({embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")}));
  else if (name == "test_multiple_content_types")
    call->finish(
        content({text("Multiple content types test:"), image(),
                 embedded("test://mixed-content-resource", "application/json", R"({"test":"data","value":123})")}));
  else if (name == "test_error_handling") {
    auto result = content({text("This tool intentionally returns an error for testing")});
    result["isError"] = true;
    call->finish(std::move(result));
  } else if (name == "test_missing_capability") {
    const auto* meta = object_in(call->params(), "_meta");
    const auto* able = meta ? object_in(*meta, meta_capabilities) : nullptr;
    if (able && able->contains("sampling"))
      call->finish(content({text("done")}));
    else
      call->refuse({Code::missing_capability,
                    "this tool needs sampling",
                    json::object{{"requiredCapabilities", json::object{{"sampling", json::object()}}}},
                    {}});
  } else {
    return false;
  }
  return true;
}

bool Fixture::call_asking(const CallRef& call) {
  const auto& name = call->subject();
  const auto tell = [&](const json::object* answer, const char* form) {
    call->finish(
        content({text(fmt::format(fmt::runtime(form), text_in(*answer, "action"), json::serialize(*answer)))}));
  };
  const auto ask_once = [&](const char* key, json::object question, const char* form) {
    const auto* answer = given(call, key);
    if (answer && (answer->contains("action") || answer->contains("content") || answer->contains("roots")))
      tell(answer, form);
    else
      call->ask({{key, std::move(question)}}, {});
  };
  constexpr auto completed = "Elicitation completed: action={}, content={}";
  if (name == "test_elicitation") {
    ask_once(
        "answer",
        elicit(
            text_in(call->arguments(), "message").c_str(),
            R"({"type":"object","properties":{"username":{"type":"string","description":"User's response"},"email":{"type":"string","description":"User's email address"}},"required":["username","email"]})"),
        "User response: action {}, content: {}");
  } else if (name == "test_elicitation_sep1034_defaults") {
    ask_once(
        "answer",
        elicit(
            "Please check",
            R"({"type":"object","properties":{"name":{"type":"string","default":"John Doe"},"age":{"type":"integer","default":30},"score":{"type":"number","default":95.5},"status":{"type":"string","enum":["active","inactive","pending"],"default":"active"},"verified":{"type":"boolean","default":true}}})"),
        completed);
  } else if (name == "test_elicitation_sep1330_enums") {
    ask_once("answer", elicit("Please choose", R"({"type":"object","properties":{
               "untitledSingle":{"type":"string","enum":["option1","option2","option3"]},
               "titledSingle":{"type":"string","oneOf":[{"const":"value1","title":"First Option"},{"const":"value2","title":"Second Option"},{"const":"value3","title":"Third Option"}]},
               "legacyEnum":{"type":"string","enum":["opt1","opt2","opt3"],"enumNames":["Option One","Option Two","Option Three"]},
               "untitledMulti":{"type":"array","items":{"type":"string","enum":["option1","option2","option3"]}},
               "titledMulti":{"type":"array","items":{"anyOf":[{"const":"value1","title":"First Choice"},{"const":"value2","title":"Second Choice"},{"const":"value3","title":"Third Choice"}]}}}})"),
             completed);
  } else if (name == "test_sampling") {
    ask_once("answer", sample(text_in(call->arguments(), "prompt"), 100), "LLM response: {} {}");
  } else if (name == "test_input_required_result_elicitation" || name == "test_streaming_elicitation") {
    ask_once("user_name", elicit("What is your name?", greeting_form), "Hello, {} {}");
  } else if (name == "test_input_required_result_sampling") {
    ask_once("capital_question", sample("What is the capital of France?", 100), "The model says: {} {}");
  } else if (name == "test_input_required_result_list_roots") {
    ask_once("client_roots", {{"method", "roots/list"}, {"params", json::object()}}, "Roots: {} {}");
  } else if (name == "test_input_required_result_request_state" ||
             name == "test_input_required_result_tampered_state") {
    const bool known = states_.contains(call->state());
    if (call->state().empty())
      call->ask({{"confirm", elicit("Please confirm",
                                    R"({"type":"object","properties":{"ok":{"type":"boolean"}},"required":["ok"]})")}},
                remember("confirm"));
    else if (known)
      call->finish(content({text("state-ok")}));
    else
      call->refuse({Code::invalid_params, "this requestState is not one of ours", {}, {}});
  } else if (name == "test_input_required_result_multiple_inputs") {
    if (given(call, "user_name") && given(call, "greeting") && given(call, "client_roots"))
      call->finish(content({text("all of it")}));
    else
      call->ask({{"user_name", elicit("What is your name?", greeting_form)},
                 {"greeting", sample("Generate a greeting", 50)},
                 {"client_roots", json::object{{"method", "roots/list"}, {"params", json::object()}}}},
                remember("three"));
  } else if (name == "test_input_required_result_multi_round") {
    const auto stage = states_.contains(call->state()) ? states_.at(call->state()) : std::string();
    if (stage == "two" && given(call, "step2"))
      call->finish(content({text("both steps are done")}));
    else if (stage == "one" && given(call, "step1"))
      call->ask(
          {{"step2", elicit("Step 2: What is your favorite color?",
                            R"({"type":"object","properties":{"color":{"type":"string"}},"required":["color"]})")}},
          remember("two"));
    else
      call->ask({{"step1", elicit("Step 1: What is your name?", greeting_form)}}, remember("one"));
  } else if (name == "test_input_required_result_capabilities") {
    const auto* able = object_in(*object_in(call->params(), "_meta"), meta_capabilities);
    json::object questions;
    if (able->contains("elicitation")) questions["user_name"] = elicit("What is your name?", greeting_form);
    if (able->contains("sampling")) questions["greeting"] = sample("Generate a greeting", 50);
    call->ask(std::move(questions), remember("some"));
  } else {
    return false;
  }
  return true;
}

void Fixture::read_resource(CallRef call) {
  const auto& uri = call->subject();
  json::object found{{"uri", uri}, {"mimeType", "text/plain"}};
  constexpr std::string_view begin = "test://template/", end = "/data";
  if (uri == "test://static-text") {
    found["text"] = "This is the content of the static text resource.";
  } else if (uri == "test://watched-resource") {
    found["text"] = "watched";
  } else if (uri == "test://static-binary") {
    found["mimeType"] = "image/png";
    found["blob"] = png;
  } else if (uri.starts_with(begin) && uri.ends_with(end) && uri.size() > begin.size() + end.size()) {
    const auto id = uri.substr(begin.size(), uri.size() - begin.size() - end.size());
    found["mimeType"] = "application/json";
    found["text"] = json::serialize(json::object{{"id", id}, {"templateTest", true}, {"data", "Data for ID: " + id}});
  } else {
    return call->refuse({Code::resource_not_found, "there is no such resource", json::object{{"uri", uri}}, {}});
  }
  call->finish({{"contents", json::array{std::move(found)}}});
}

bool Fixture::other(const std::string& method, CallRef call) {
  if (method == "prompts/list") {
    json::array prompts;
    for (const char* name : {"test_simple_prompt", "test_prompt_with_embedded_resource", "test_prompt_with_image",
                             "test_input_required_result_prompt"})
      prompts.push_back(json::object{{"name", name}, {"description", "For tests."}});
    prompts.push_back(json::object{
        {"name", "test_prompt_with_arguments"},
        {"description", "For tests."},
        {"arguments", json::array{json::object{{"name", "arg1"}, {"description", "one"}, {"required", true}},
                                  json::object{{"name", "arg2"}, {"description", "two"}, {"required", true}}}}});
    call->finish({{"prompts", std::move(prompts)}, {"ttlMs", 0}, {"cacheScope", "private"}});
  } else if (method == "prompts/get") {
    get_prompt(call);
  } else if (method == "completion/complete") {
    call->finish(
        {{"completion", json::object{{"values", json::array{"paris", "park"}}, {"total", 2}, {"hasMore", false}}}});
  } else if (method == "logging/setLevel" && call->caller().protocol != modern_version) {
    call->finish({});
  } else {
    return false;
  }
  return true;
}

void Fixture::get_prompt(const CallRef& call) {
  const auto say = [&](json::array parts) {
    json::array messages;
    for (auto& part : parts)
      messages.push_back(json::object{{"role", "user"}, {"content", std::move(part)}});
    call->finish({{"messages", std::move(messages)}});
  };
  const auto& name = call->subject();
  if (name == "test_simple_prompt")
    say({text("This is a simple prompt for testing.")});
  else if (name == "test_prompt_with_arguments")
    say({text(fmt::format("Prompt with arguments: arg1='{}', arg2='{}'", text_in(call->arguments(), "arg1"),
                          text_in(call->arguments(), "arg2")))});
  else if (name == "test_prompt_with_embedded_resource")
    say({embedded(text_in(call->arguments(), "resourceUri").c_str(), "text/plain",
                  "Embedded resource content for testing."),
         text("Please process the embedded resource above.")});
  else if (name == "test_prompt_with_image")
    say({image(), text("Please analyze the image above.")});
  else if (name == "test_input_required_result_prompt" && given(call, "user_context"))
    say({text("with what you said")});
  else if (name == "test_input_required_result_prompt")
    call->ask({{"user_context",
                elicit("What context should the prompt use?",
                       R"({"type":"object","properties":{"context":{"type":"string"}},"required":["context"]})")}},
              {});
  else
    call->refuse({Code::invalid_params, "there is no such prompt", {}, {}});
}

/// What the door says, for the server to send: events wait here for whoever writes the stream.
struct Reply : HttpReply {
  explicit Reply(Loop& loop) : changed(loop) {}
  void whole(int code, std::map<std::string, std::string> with, std::string text) override {
    status = code;
    headers = std::move(with);
    body = std::move(text);
    changed.set();
  }
  void event(const json::object& message) override {
    events += "event: message\ndata: " + json::serialize(message) + "\n\n";
    changed.set();
  }
  void end() override {
    ended = true;
    changed.set();
  }

  int status = 0;
  std::map<std::string, std::string> headers;
  std::string body, events;
  bool ended = false;
  Signal changed;
};

Task<void> write_events(std::shared_ptr<Reply> reply, std::function<void()> leave, sim::ServerReply::Write write) {
  for (;;) {
    (void)co_await reply->changed.wait();
    reply->changed.reset();
    auto piece = std::exchange(reply->events, {});
    bool there = true;
    if (!piece.empty()) there = co_await write(std::move(piece));
    if (!there && leave) leave();
    if (!there || reply->ended) co_return;
  }
}

Task<sim::ServerReply> answer(Loop& loop, HttpDoor& door, sim::ServerRequest request) {
  const auto reply = std::make_shared<Reply>(loop);
  HttpRequest asked{request.method, request.headers, request.body};
  const auto leave = door.handle(std::move(asked), reply);
  (void)co_await reply->changed.wait();
  sim::ServerReply out;
  if (reply->status == 0) {
    out.content_type = "text/event-stream";
    out.stream = [reply, leave](sim::ServerReply::Write write) { return write_events(reply, leave, std::move(write)); };
    co_return out;
  }
  out.status = reply->status;
  out.body = reply->body;
  if (const auto type = reply->headers.find("content-type"); type != reply->headers.end())
    out.content_type = type->second;
  reply->headers.erase("content-type");
  out.headers = reply->headers;
  co_return out;
}

}  // namespace

int main() {
  Loop loop;
  Fixture fixture(loop);
  HttpDoor door(fixture);
  const auto handler = [&](sim::ServerRequest request) { return answer(loop, door, std::move(request)); };
  const auto server = sim::HttpServer::listen(loop, "127.0.0.1", 0, handler);
  if (!server) {
    std::fprintf(stderr, "%s\n", server.error().message.c_str());
    return 1;
  }
  std::printf("%u\n", static_cast<unsigned>((*server)->port()));
  std::fflush(stdout);
  std::thread([] {
    char byte = 0;
    while (::read(0, &byte, 1) > 0) {
    }
    ::_exit(0);
  }).detach();
  loop.run();
}
