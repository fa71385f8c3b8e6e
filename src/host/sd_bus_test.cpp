// The connection alone, against a stand-in for the manager at the other end of a socket: what a real manager cannot be
// asked to do (stay silent, vanish in the middle) happens here.
#include "host/sd_bus.h"

#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#include "host/bus_testing.h"

namespace gpumod {
namespace {

using testing::HasSubstr;

/// Answers Echo(s) with its argument, Refuse() with an error; is silent on Hang(); emits Tick(u) on Ring(u); closes the
/// connection on Vanish().
class StandInManager {
 public:
  StandInManager() {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) ::abort();
    client_ = Fd(ends[0]);
    thread_ = std::thread([server = ends[1]] { serve(server); });
  }
  ~StandInManager() {
    client_.reset();
    thread_.join();
  }
  Fd take_client() { return std::move(client_); }

 private:
  static void serve(int socket) { serve_bus(socket, answer, nullptr); }

  static int answer(sd_bus_message* message, void*, sd_bus_error*) {
    if (sd_bus_message_is_method_call(message, nullptr, "Echo")) {
      const char* text = "";
      sd_bus_message_read(message, "s", &text);
      sd_bus_reply_method_return(message, "s", text);
    } else if (sd_bus_message_is_method_call(message, nullptr, "Refuse")) {
      sd_bus_reply_method_errorf(message, "org.freedesktop.systemd1.NoSuchUnit", "Unit nothing.service not loaded.");
    } else if (sd_bus_message_is_method_call(message, nullptr, "Ring")) {
      std::uint32_t count = 0;
      sd_bus_message_read(message, "u", &count);
      for (std::uint32_t i = 0; i < count; ++i)
        sd_bus_emit_signal(sd_bus_message_get_bus(message), "/tower", "test.Bell", "Tick", "u", i);
      sd_bus_reply_method_return(message, "");
    } else if (sd_bus_message_is_method_call(message, nullptr, "Vanish")) {
      sd_bus_close(sd_bus_message_get_bus(message));
    }
    return 1;
  }

  Fd client_;
  std::thread thread_;
};

class BusTest : public testing::Test {
 protected:
  void SetUp() override {
    auto connected = Bus::over_socket(loop, manager.take_client());
    ASSERT_TRUE(connected) << connected.error().message;
    bus = std::move(*connected);
  }

  BusMessage request(const char* member) {
    auto message = bus->method("/test", "test.Interface", member);
    EXPECT_TRUE(message);
    return message ? std::move(*message) : nullptr;
  }
  Result<BusMessage> call_now(const char* member, Duration timeout = 10s) {
    return loop.run_until_done(call(bus, request(member), timeout));
  }

  StandInManager manager;
  Loop loop;
  std::shared_ptr<Bus> bus;
};

TEST_F(BusTest, RepliesComeInTheOrderOfTheRequests) {
  std::vector<BusMessage> requests;
  for (int i = 0; i < 2000; ++i) {
    requests.push_back(request(i % 10 == 7 ? "Refuse" : "Echo"));
    const auto text = std::to_string(i) + std::string(200, '.');
    if (i % 10 != 7) sd_bus_message_append(requests.back().get(), "s", text.c_str());
  }
  const auto replies = loop.run_until_done(call_all(bus, std::move(requests), 30s));
  ASSERT_EQ(replies.size(), 2000u);
  for (int i = 0; i < 2000; ++i) {
    const auto& reply = replies[static_cast<std::size_t>(i)];
    ASSERT_EQ(reply.has_value(), i % 10 != 7) << i;
    if (!reply) continue;
    const char* text = nullptr;
    ASSERT_GT(sd_bus_message_read(reply->get(), "s", &text), 0);
    ASSERT_EQ(std::string(text).substr(0, std::to_string(i).size() + 1), std::to_string(i) + ".");
  }
}

TEST_F(BusTest, AnErrorKeepsItsNameAndItsWords) {
  const auto reply = call_now("Refuse");
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::not_found);
  EXPECT_EQ(bus_error_name(reply.error()), "org.freedesktop.systemd1.NoSuchUnit");
  EXPECT_THAT(reply.error().message, HasSubstr("Unit nothing.service not loaded."));
}

TEST_F(BusTest, SilenceEndsAtTheTimeoutAndTheConnectionStaysUsable) {
  const auto reply = call_now("Hang", 50ms);
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().code, ErrorCode::environment);
  EXPECT_THAT(reply.error().message, HasSubstr("did not answer Hang within"));
  EXPECT_TRUE(bus->alive());
  EXPECT_EQ(bus_error_name(call_now("Refuse").error()), "org.freedesktop.systemd1.NoSuchUnit");
}

TEST_F(BusTest, ALostConnectionFailsEveryPendingCall) {
  int lost = 0;
  bus->on_lost([&] { ++lost; });
  std::vector<BusMessage> requests;
  for (const char* member : {"Hang", "Echo", "Hang", "Vanish", "Hang"}) {
    requests.push_back(request(member));
    if (member == std::string("Echo")) sd_bus_message_append(requests.back().get(), "s", "x");
  }
  const auto replies = loop.run_until_done(call_all(bus, std::move(requests), 60s));
  for (const std::size_t i : {0u, 2u, 3u, 4u}) {
    ASSERT_FALSE(replies[i]);
    EXPECT_EQ(replies[i].error().code, ErrorCode::environment);
    EXPECT_THAT(replies[i].error().message, HasSubstr("lost"));
  }
  EXPECT_FALSE(bus->alive());
  EXPECT_EQ(lost, 1);
  EXPECT_FALSE(bus->method("/test", "test.Interface", "Echo"));
}

TEST_F(BusTest, ACallWhoseTaskIsDestroyedNeverCallsBack) {
  auto other = std::make_unique<Loop>();
  StandInManager second;
  auto connected = Bus::over_socket(*other, second.take_client());
  ASSERT_TRUE(connected);
  auto hang = (*connected)->method("/test", "test.Interface", "Hang");
  ASSERT_TRUE(hang);
  bool returned = false;
  const auto wait = [](std::shared_ptr<Bus> over, BusMessage message, bool& flag) -> Task<void> {
    const auto reply = co_await call(std::move(over), std::move(message), 60s);
    flag = true;
  };
  other->spawn(wait(*connected, std::move(*hang), returned));
  other->post([&] { other->stop(); });
  other->run();
  connected->reset();
  other.reset();
  EXPECT_FALSE(returned);
}

TEST_F(BusTest, SignalsReachTheirListenersUntilTheyLetGo) {
  std::vector<std::uint32_t> heard;
  Registration listening;
  auto registered = bus->on_signal("/tower", "test.Bell", "Tick", [&](sd_bus_message* signal) {
    std::uint32_t value = 0;
    sd_bus_message_read(signal, "u", &value);
    heard.push_back(value);
    if (heard.size() == 3) listening.release();  // from inside its own callback
  });
  ASSERT_TRUE(registered);
  listening = std::move(*registered);
  auto ring = request("Ring");
  sd_bus_message_append(ring.get(), "u", 1500u);
  ASSERT_TRUE(loop.run_until_done(call(bus, std::move(ring), 10s)));
  EXPECT_THAT(heard, testing::ElementsAre(0u, 1u, 2u));
}

TEST(BusConnection, NoManagerIsAnEnvironmentErrorThatSaysWhatToDo) {
  const char* names[] = {"XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"};
  std::vector<std::pair<const char*, std::optional<std::string>>> before;
  for (const char* name : names)
    before.emplace_back(name, ::getenv(name) ? std::optional(std::string(::getenv(name))) : std::nullopt);
  ::setenv("XDG_RUNTIME_DIR", "/nonexistent", 1);
  ::unsetenv("DBUS_SESSION_BUS_ADDRESS");
  Loop loop;
  const auto bus = Bus::connect_user_manager(loop);
  for (const auto& [name, value] : before)
    value ? ::setenv(name, value->c_str(), 1) : ::unsetenv(name);
  ASSERT_FALSE(bus);
  EXPECT_EQ(bus.error().code, ErrorCode::environment);
  EXPECT_THAT(bus.error().message, HasSubstr("/nonexistent/systemd/private"));
  EXPECT_THAT(bus.error().hint, HasSubstr("loginctl enable-linger"));
  EXPECT_THAT(bus.error().hint, HasSubstr("unit_manager: local"));
}

}  // namespace
}  // namespace gpumod
