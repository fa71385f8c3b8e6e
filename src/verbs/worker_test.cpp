#include "verbs/worker.h"

#include <cerrno>
#include <string_view>

#include <boost/json.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

namespace gpumod {
namespace {

namespace json = boost::json;
using ::testing::HasSubstr;

/// A worker that says this, closes its socket, and takes a while to be gone, as one does that the kernel takes apart.
StartedWorker worker_that_says(std::string_view text) {
  int ends[2];
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  StartedWorker worker;
  worker.pid = ::fork();
  if (worker.pid == 0) {
    const bool said = ::write(ends[1], text.data(), text.size()) == static_cast<ssize_t>(text.size());
    ::close(ends[0]);
    ::close(ends[1]);
    ::usleep(200'000);
    ::_exit(said ? 0 : 1);
  }
  ::close(ends[1]);
  worker.socket.reset(ends[0]);
  return worker;
}

Result<std::optional<json::value>> follow(const StartedWorker& worker) {
  return follow_worker(
      worker, [](const json::object&) {}, [] { return false; });
}

bool is_gone(const StartedWorker& worker) {
  return ::waitpid(worker.pid, nullptr, WNOHANG) == -1 && errno == ECHILD;
}

TEST(Worker, OneThatDiesWithoutAnAnswerIsGoneWhenThatIsTold) {
  const auto worker = worker_that_says("");
  const auto followed = follow(worker);
  ASSERT_FALSE(followed);
  EXPECT_EQ(followed.error().code, ErrorCode::failed);
  EXPECT_THAT(followed.error().message, HasSubstr("died before it was done"));
  EXPECT_TRUE(is_gone(worker)) << "its lock would still be held";
}

TEST(Worker, OneThatAnswersIsGoneWhenThatIsTold) {
  const auto worker = worker_that_says("{\"answer\": {\"all\": \"well\"}}\n");
  const auto followed = follow(worker);
  ASSERT_TRUE(followed) << followed.error().message;
  EXPECT_EQ(json::serialize(followed->value()), "{\"all\":\"well\"}");
  EXPECT_TRUE(is_gone(worker));
}

}  // namespace
}  // namespace gpumod
