// libFuzzer entry: any bytes, as a client of the MCP server sends them, and as the configuration file of one. The first
// byte chooses. Besides not crashing: every answer is JSON-RPC and answers an id that was sent, nothing is answered twice,
// headers that differ from the body never reach a tool, and a file that was edited holds what it held before.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string>
#include <string_view>

#include <boost/json.hpp>

#include "base/text.h"
#include "faces/mcp/http_door.h"
#include "faces/mcp/scrub.h"
#include "faces/mcp/session.h"
#include "faces/mcp/shape.h"
#include "verbs/json_edit.h"
#include "verbs/toml_edit.h"

namespace {

using namespace gpumod;
using namespace gpumod::mcp;
namespace json = boost::json;

void require(bool holds) {
  if (!holds) std::abort();
}

/// Ends each call at once, in one of the ways there are, or never.
class AnyOffer : public Offer {
 public:
  json::object server_info() override { return {{"name", "x"}, {"version", "1"}}; }
  std::string instructions() override { return {}; }
  json::object capabilities() override { return {}; }
  json::array tools() override { return {}; }
  json::array resources() override { return {}; }
  json::array resource_templates() override { return {}; }
  bool has_resource(const std::string& uri) override { return uri.size() % 2 == 0; }
  void call_tool(CallRef call) override {
    ++calls;
    call->progress(1, 2, "x");
    if (call->subject() == "a") call->finish({});
    if (call->subject() == "b") call->refuse({Code::invalid_params, "no", {}, {}});
    if (call->subject() == "c" && call->inputs().empty())
      call->ask({{"k", json::object{{"method", "elicitation/create"}}}}, "s");
  }
  void read_resource(CallRef call) override { call->refuse({Code::resource_not_found, "no", {}, {}}); }
  bool other(const std::string&, CallRef) override { return false; }
  void subscriptions_changed() override {}
  int calls = 0;
};

void fuzz_stream(std::string_view bytes, bool begun) {
  AnyOffer offer;
  Session session(offer);
  std::multiset<std::string> asked;
  const auto send = [&](const json::object& message) {
    require(message.at("jsonrpc") == json::value("2.0"));
    require(is_valid_utf8(json::serialize(message)));
    if (message.contains("method")) return;
    require(message.contains("result") != message.contains("error"));
    if (const auto* id = message.if_contains("id")) {
      const auto found = asked.find(json::serialize(*id));
      require(found != asked.end());
      asked.erase(found);
    }
  };
  if (begun) {
    asked.insert("0");
    session.receive(R"({"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25"}})",
                    send);
  }
  for (const auto line : split_lines(bytes)) {
    std::error_code problem;
    const auto value = json::parse(line, problem);
    if (!problem && value.is_object())
      if (const auto* id = value.get_object().if_contains("id")) asked.insert(json::serialize(*id));
    session.receive(line, send);
    session.changed("ab");
  }
  session.close(true);
}

struct NoReply : HttpReply {
  void whole(int status, std::map<std::string, std::string>, std::string) override {
    require(status >= 200 && status < 600 && !ended);
    ended = true;
  }
  void event(const json::object&) override { require(!ended); }
  void end() override { ended = true; }
  bool ended = false;
};

/// One line a header, an empty line, the body.
void fuzz_http(std::string_view bytes) {
  AnyOffer offer;
  HttpDoor door(offer);
  HttpRequest request{"POST", {{"content-type", "application/json"}}, {}};
  while (!bytes.empty()) {
    const auto end = std::min(bytes.find('\n'), bytes.size());
    const auto line = bytes.substr(0, end);
    bytes.remove_prefix(std::min(end + 1, bytes.size()));
    if (line.empty()) break;
    const auto colon = std::min(line.find(':'), line.size());
    request.headers[std::string(line.substr(0, colon))] = std::string(line.substr(std::min(colon + 1, line.size())));
  }
  request.body = std::string(bytes);
  const auto method = request.headers["mcp-method"];
  const auto leave = door.handle(request, std::make_shared<NoReply>());
  require(offer.calls == 0 || method == "tools/call");
  if (leave) leave();
}

void fuzz_edit(std::string_view bytes) {
  const json::value entry{{"command", "gpumod"}};
  const auto edited = with_json_value(bytes, {"servers", "gpumod"}, entry);
  if (!edited) return;
  json::parse_options options;
  options.allow_comments = options.allow_trailing_commas = true;
  options.max_depth = 200;
  const auto read = [&](std::string_view text) {
    if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
    return trim(text).empty() ? json::value(json::object()) : json::parse(text, {}, options);
  };
  auto before = read(bytes), after = read(*edited);
  require(after.at("servers").at("gpumod") == entry);
  const auto without = [](json::value& value) {
    auto& servers = value.as_object()["servers"];
    if (!servers.is_object()) servers = json::object();
    servers.as_object().erase("gpumod");
  };
  without(before), without(after);
  require(before == after);
  require(*with_json_value(*edited, {"servers", "gpumod"}, entry) == *edited);
}

void fuzz_toml(std::string_view bytes) {
  const std::vector<std::string> path{"servers", "gpumod"};
  const json::object members{{"command", "gpumod"}, {"args", {"mcp"}}};
  const auto edited = with_toml_table(bytes, path, members);
  if (!edited) return;
  require(edited->starts_with(bytes));
  require(*with_toml_table(*edited, path, members) == *edited);
  if (edited->size() > bytes.size()) require(!with_toml_table(*edited, path, {{"command", "another"}}));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 6) {  // '0' is the first of them
    case 0: fuzz_stream(bytes, false); break;
    case 1: fuzz_stream(bytes, true); break;
    case 2: fuzz_http(bytes); break;
    case 3: fuzz_edit(bytes); break;
    case 5: fuzz_toml(bytes); break;
    case 4:
      require(schema_of_shape(bytes).contains("type"));
      if (is_valid_utf8(bytes)) {
        Scrubber scrub("/home/x");
        scrub.learn({"a long secret", "secret of\nseveral lines"});
        const auto clean = scrub.text(bytes);
        require(is_valid_utf8(clean) && clean.find("a long secret") == std::string::npos);
      }
      break;
  }
  return 0;
}
