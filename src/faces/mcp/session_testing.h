// For tests of the protocol: an offer whose calls end when the test says so, and a client that writes down what it gets.
#pragma once

#include <vector>

#include <boost/json.hpp>
#include <gtest/gtest.h>

#include "faces/mcp/session.h"

namespace gpumod::mcp {

class TestOffer : public Offer {
 public:
  boost::json::object server_info() override { return {{"name", "test"}, {"version", "1"}}; }
  std::string instructions() override { return "Be kind."; }
  boost::json::object capabilities() override { return {{"tools", boost::json::object()}}; }
  boost::json::array tools() override { return {boost::json::object{{"name", "work"}}}; }
  boost::json::array resources() override { return {boost::json::object{{"uri", "test://a"}}}; }
  boost::json::array resource_templates() override { return {}; }
  bool has_resource(const std::string& uri) override { return uri == "test://a"; }
  void call_tool(CallRef call) override { calls.push_back(std::move(call)); }
  void read_resource(CallRef call) override {
    if (!has_resource(call->subject()))
      return call->refuse({Code::resource_not_found, "there is no such resource", {}, {}});
    call->finish({{"contents", boost::json::array()}});
  }
  bool other(const std::string&, CallRef) override { return false; }
  void subscriptions_changed() override {
    ++subscription_changes;
    if (on_subscriptions) on_subscriptions();
  }

  std::vector<CallRef> calls;
  int subscription_changes = 0;
  std::function<void()> on_subscriptions;
};

class Client {
 public:
  explicit Client(Offer& offer) : session(offer) {}

  void says(std::string_view bytes) {
    session.receive(bytes, [this](const boost::json::object& message) { got.push_back(message); });
  }
  void says(const boost::json::object& message) { says(boost::json::serialize(message)); }
  /// A modern request.
  void asks(boost::json::value id, std::string_view method, boost::json::object params = {},
            boost::json::object capabilities = {}, boost::json::object meta = {}) {
    meta[meta_version] = modern_version;
    meta[meta_capabilities] = std::move(capabilities);
    meta[meta_client] = boost::json::object{{"name", "tester"}, {"version", "7"}};
    params["_meta"] = std::move(meta);
    says({{"jsonrpc", "2.0"}, {"id", std::move(id)}, {"method", method}, {"params", std::move(params)}});
  }
  void asks_plainly(boost::json::value id, std::string_view method, boost::json::object params = {}) {
    says({{"jsonrpc", "2.0"}, {"id", std::move(id)}, {"method", method}, {"params", std::move(params)}});
  }
  void begins(std::string_view version, boost::json::object capabilities = {}) {
    asks_plainly("init", "initialize",
                 {{"protocolVersion", version},
                  {"capabilities", std::move(capabilities)},
                  {"clientInfo", boost::json::object{{"name", "old tester"}}}});
    last();
    says(R"({"jsonrpc":"2.0","method":"notifications/initialized"})");
  }
  /// The one message that came since.
  boost::json::object last() {
    EXPECT_EQ(got.size(), 1U) << boost::json::serialize(boost::json::value_from(got));
    auto message = got.empty() ? boost::json::object() : got.back();
    got.clear();
    return message;
  }
  boost::json::object result() {
    const auto message = last();
    const auto* found = object_in(message, "result");
    EXPECT_TRUE(found) << boost::json::serialize(message);
    return found ? *found : boost::json::object();
  }
  int error() {
    const auto message = last();
    const auto* found = object_in(message, "error");
    EXPECT_TRUE(found) << boost::json::serialize(message);
    return found ? static_cast<int>(found->at("code").as_int64()) : 0;
  }

  Session session;
  std::vector<boost::json::object> got;
};

}  // namespace gpumod::mcp
