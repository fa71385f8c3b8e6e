#include "host/run.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "host/processes.h"

extern char** environ;

namespace gpumod {

namespace {

constexpr std::size_t output_limit = 1 << 20;
constexpr Duration patience_after_kill = 1s;

struct Child {
  pid_t pid = -1;
  Fd output;
  Fd pidfd;
};

Result<Child> start(const std::vector<std::string>& argv) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail(system_error("create a pipe", errno));
  Child child;
  child.output.reset(ends[0]);
  const Fd writing(ends[1]);
  ::fcntl(child.output.get(), F_SETFL, O_NONBLOCK);

  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&actions, writing.get(), 1);
  ::posix_spawn_file_actions_adddup2(&actions, writing.get(), 2);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t nothing;
  ::sigemptyset(&nothing);
  ::posix_spawnattr_setsigmask(&attributes, &nothing);
  ::posix_spawnattr_setpgroup(&attributes, 0);  // so that a timeout can end its children too
  ::posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);

  std::vector<char*> raw;
  for (const auto& argument : argv)
    raw.push_back(const_cast<char*>(argument.c_str()));
  raw.push_back(nullptr);
  const int problem = ::posix_spawn(&child.pid, raw[0], &actions, &attributes, raw.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::posix_spawnattr_destroy(&attributes);
  if (problem != 0) return fail(system_error(fmt::format("start {}", argv[0]), problem));
  auto pidfd = open_pidfd(child.pid);
  if (pidfd) child.pidfd = std::move(*pidfd);
  return child;
}

}  // namespace

Task<Result<RunOutcome>> run_program(std::vector<std::string> argv, Duration timeout) {
  auto started = start(argv);
  if (!started) co_return fail(started.error());
  Child child = std::move(*started);
  const TimePoint deadline = now() + timeout;
  RunOutcome outcome;
  char buffer[16 * 1024];
  for (;;) {
    const ssize_t n = ::read(child.output.get(), buffer, sizeof buffer);
    if (n == 0) break;
    if (n > 0) {
      if (outcome.output.size() < output_limit) outcome.output.append(buffer, static_cast<std::size_t>(n));
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) break;
    auto ready = co_await wait_ready(child.output.get(), Readiness::readable, deadline);
    if (!ready || !*ready) {
      outcome.timed_out = true;
      break;
    }
  }
  // Its output may be closed while it lives on, and the other way round: both end at the deadline.
  if (!outcome.timed_out && child.pidfd) {
    auto ended = co_await wait_process_end(child.pidfd, deadline);
    outcome.timed_out = !ended || !*ended;
  }
  if (outcome.timed_out) {
    ::kill(-child.pid, SIGKILL);
    // What hangs in the kernel, in a driver or a network drive, does not end even now: it is left behind.
    if (child.pidfd) {
      auto ended = co_await wait_process_end(child.pidfd, now() + patience_after_kill);
      if (!ended || !*ended) co_return outcome;
    }
  }
  int status = 0;
  while (::waitpid(child.pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && !outcome.timed_out) outcome.exit_code = WEXITSTATUS(status);
  co_return outcome;
}

Result<std::filesystem::path> find_program(const std::string& name, const std::string& path_variable) {
  namespace fs = std::filesystem;
  const auto executable = [](const fs::path& path) {
    std::error_code ignored;
    return fs::is_regular_file(path, ignored) && ::access(path.c_str(), X_OK) == 0;
  };
  if (name.find('/') != std::string::npos) {
    if (executable(name)) return fs::absolute(name);
    return fail(ErrorCode::not_found, fmt::format("{} is not an executable file", name));
  }
  std::string_view rest = path_variable;
  while (!rest.empty()) {
    const auto end = rest.find(':');
    const fs::path directory(rest.substr(0, end));
    if (directory.is_absolute() && executable(directory / name)) return directory / name;
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + 1);
  }
  return fail(ErrorCode::not_found, fmt::format("{} was not found in PATH", name));
}

}  // namespace gpumod
