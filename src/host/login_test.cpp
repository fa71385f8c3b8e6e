// Against a stand-in for bus and logind in one, on a socket of its own.
#include "host/login.h"

#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/folder_testing.h"
#include "host/bus_testing.h"

namespace gpumod {
namespace {

using testing::HasSubstr;

class StandIn {
 public:
  enum class Manner { willing, refusing, silent };

  explicit StandIn(Manner manner) : manner_(manner) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const auto path = (folder_ / "bus").string();
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    listening_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::bind(listening_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(listening_.get(), 1) != 0)
      ::abort();
    thread_ = std::thread([this] { serve(); });
  }
  ~StandIn() { thread_.join(); }

  std::string address() const { return "unix:path=" + (folder_ / "bus").string(); }
  std::uint32_t user = 0;
  int on = 0, asks = 1;

 private:
  void serve() {
    const int connection = ::accept(listening_.get(), nullptr, nullptr);
    serve_bus(connection, answer, this);
  }

  static int answer(sd_bus_message* message, void* user_data, sd_bus_error*) {
    auto* self = static_cast<StandIn*>(user_data);
    if (sd_bus_message_is_method_call(message, "org.freedesktop.DBus", "Hello")) {
      sd_bus_reply_method_return(message, "s", ":1.1");
    } else if (sd_bus_message_is_method_call(message, "org.freedesktop.login1.Manager", "SetUserLinger")) {
      sd_bus_message_read(message, "ubb", &self->user, &self->on, &self->asks);
      if (self->manner_ == Manner::willing) sd_bus_reply_method_return(message, "");
      if (self->manner_ == Manner::refusing)
        sd_bus_reply_method_errorf(message, "org.freedesktop.DBus.Error.AccessDenied", "Permission denied");
    }
    return 1;
  }

  Manner manner_;
  TestFolder folder_;
  Fd listening_;
  std::thread thread_;
};

TEST(Linger, IsAskedForTheOwnUserWithoutAPassword) {
  StandIn logind(StandIn::Manner::willing);
  const auto done = enable_linger(logind.address(), 5s);
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(logind.user, ::geteuid());
  EXPECT_EQ(logind.on, 1);
  EXPECT_EQ(logind.asks, 0);
}

TEST(Linger, ARefusalIsTold) {
  StandIn logind(StandIn::Manner::refusing);
  const auto done = enable_linger(logind.address(), 5s);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, ErrorCode::environment);
  EXPECT_THAT(done.error().message, HasSubstr("Permission denied"));
  EXPECT_THAT(done.error().hint, HasSubstr("loginctl enable-linger"));
}

TEST(Linger, ASilentLogindDoesNotHoldUsUp) {
  StandIn logind(StandIn::Manner::silent);
  const auto began = now();
  EXPECT_FALSE(enable_linger(logind.address(), 100ms));
  EXPECT_LT(now() - began, 4s);
}

TEST(Linger, ABusThatIsNotThereIsAnError) {
  const auto done = enable_linger("unix:path=/nonexistent/bus", 1s);
  ASSERT_FALSE(done);
  EXPECT_THAT(done.error().message, HasSubstr("No such file"));
}

}  // namespace
}  // namespace gpumod
