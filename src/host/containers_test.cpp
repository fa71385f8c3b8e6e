#include "host/containers.h"

#include <thread>

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/paths.h"
#include "host/local_testing.h"

namespace gpumod {
namespace {

const std::string id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

TEST(ContainerOfCgroup, IsTheInnermostId) {
  EXPECT_EQ(container_of_cgroup("/system.slice/docker-" + id + ".scope"), id);
  EXPECT_EQ(container_of_cgroup("/docker/" + id), id);
  EXPECT_EQ(
      container_of_cgroup("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + id + ".scope/container"),
      id);
  EXPECT_EQ(container_of_cgroup("/kubepods.slice/pod7.slice/cri-containerd-" + id + ".scope"), id);
  const std::string other = std::string(64, 'f');
  EXPECT_EQ(container_of_cgroup("/docker/" + other + "/system.slice/docker-" + id + ".scope"), id);
}

TEST(ContainerOfCgroup, IsNothingElsewhere) {
  for (const char* path : {"", "/", "/user.slice/app.slice/gpumod-chat.service", "/system.slice/docker.service",
                           "/docker/0123456789abcdef", "/machine.slice/libpod-conmon-x.scope"})
    EXPECT_EQ(container_of_cgroup(path), "") << path;
  EXPECT_EQ(container_of_cgroup("/docker/" + id + "0"), "");
}

/// Answers one connection after another with the same text, and remembers what it was asked. With no text it accepts
/// and says nothing.
class Runtime {
 public:
  Runtime(const std::filesystem::path& path, std::string answer) : answer_(std::move(answer)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::snprintf(address.sun_path, sizeof address.sun_path, "%s", path.c_str());
    EXPECT_EQ(::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(listener_.get(), 4), 0);
    thread_ = std::thread([this] { serve(); });
  }
  ~Runtime() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
  }
  const std::string& asked() const { return asked_; }

 private:
  void serve() {
    std::vector<Fd> silent;
    for (;;) {
      Fd connection(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!connection) return;
      char buffer[1024];
      const ssize_t n = ::recv(connection.get(), buffer, sizeof buffer, 0);
      if (n > 0) asked_.assign(buffer, static_cast<std::size_t>(n));
      if (answer_.empty())
        silent.push_back(std::move(connection));
      else
        (void)!::write(connection.get(), answer_.data(), answer_.size());
    }
  }

  std::string answer_;
  std::string asked_;  // read after the answer has come
  Fd listener_{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  std::thread thread_;
};

struct ContainerId : ::testing::Test {
  void SetUp() override { ::setenv("DOCKER_HOST", ("unix://" + socket_.string()).c_str(), 1); }
  void TearDown() override { ::unsetenv("DOCKER_HOST"); }
  std::optional<std::string> ask(Duration timeout = 10s) { return loop_.run_until_done(container_id("box", timeout)); }

  TestFolder directory_;
  std::filesystem::path socket_ = directory_.path() / "docker.sock";
  Loop loop_;
};

TEST_F(ContainerId, IsWhatTheRuntimeSays) {
  const Runtime runtime(socket_, "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{\"Id\":\"" + id +
                                     "\",\"State\":{\"Pid\":42}}");
  EXPECT_EQ(ask(), id);
  EXPECT_EQ(runtime.asked(), "GET /containers/box/json HTTP/1.0\r\nHost: localhost\r\n\r\n");
}

TEST_F(ContainerId, IsNothingWhereNobodyKnowsIt) {
  EXPECT_EQ(ask(), std::nullopt) << "no socket";
  for (const char* answer : {"HTTP/1.0 404 Not Found\r\n\r\n{\"message\":\"No such container: box\"}",
                             "HTTP/1.0 200 OK\r\n\r\n{\"Id\":7}", "HTTP/1.0 200 OK\r\n\r\nnonsense", "\r\n"}) {
    const Runtime runtime(socket_, answer);
    EXPECT_EQ(ask(), std::nullopt) << answer;
    std::filesystem::remove(socket_);
  }
  ::setenv("DOCKER_HOST", "tcp://127.0.0.1:2375", 1);
  EXPECT_EQ(ask(), std::nullopt) << "no machine but this one";
}

TEST_F(ContainerId, ARuntimeThatDoesNotAnswerIsNotWaitedForLongerThanSaid) {
  const Runtime runtime(socket_, "");
  const TimePoint before = now();
  EXPECT_EQ(ask(50ms), std::nullopt);
  EXPECT_GE(now() - before, 50ms);
}

TEST_F(ContainerId, ARuntimeThatHangsTakesNoTimeFromAnother) {
  ::unsetenv("DOCKER_HOST");
  const auto before = environment_variable("XDG_RUNTIME_DIR");
  ::setenv("XDG_RUNTIME_DIR", directory_.path().c_str(), 1);
  std::filesystem::create_directory(directory_.path() / "podman");
  {
    const Runtime hangs(socket_, "");
    const Runtime knows(directory_.path() / "podman/podman.sock", "HTTP/1.0 200 OK\r\n\r\n{\"Id\":\"" + id + "\"}");
    EXPECT_EQ(ask(500ms), id);
  }
  ::setenv("XDG_RUNTIME_DIR", before.c_str(), 1);
}

}  // namespace
}  // namespace gpumod
