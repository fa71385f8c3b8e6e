#include "host/local_launch.h"

#include <algorithm>
#include <array>
#include <cerrno>

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/processes.h"

namespace gpumod::local {

namespace {

bool named_like(std::string_view entry, std::initializer_list<std::string_view> names) {
  return std::any_of(names.begin(), names.end(), [&](std::string_view name) {
    return name.back() == '*' ? entry.starts_with(name.substr(0, name.size() - 1))
                              : entry.size() > name.size() && entry.starts_with(name) && entry[name.size()] == '=';
  });
}

std::vector<std::string> inherited(std::initializer_list<std::string_view> names) {
  std::vector<std::string> entries;
  for (char** entry = environ; *entry; ++entry)
    if (named_like(*entry, names)) entries.emplace_back(*entry);
  return entries;
}

/// The shim needs little, and what our own environment holds (tokens, the marks of a service that started us) must
/// neither be seen in it for months nor make it look like a service's process.
std::vector<std::string> shim_environment() {
  return inherited({"PATH", "HOME", "LANG", "LC_*", "TZ", "LD_LIBRARY_PATH", "ASAN_OPTIONS", "TSAN_OPTIONS",
                    "UBSAN_OPTIONS", "LSAN_OPTIONS"});
}

/// Above 2, or dup2 onto 0, 1 and 2 would overwrite one with another when we were started without them.
Result<Fd> above_standard(Fd fd) {
  if (!fd) return fail(system_error("create a descriptor for the shim", errno));
  if (fd.get() > STDERR_FILENO) return fd;
  Fd moved(::fcntl(fd.get(), F_DUPFD_CLOEXEC, STDERR_FILENO + 1));
  if (!moved) return fail(system_error("duplicate a descriptor", errno));
  return moved;
}

Result<Fd> memory_file(const std::string& text) {
  Fd file = TRY(above_standard(Fd(::memfd_create("gpumod-shim", MFD_CLOEXEC))));
  std::string_view left = text;
  while (!left.empty()) {
    const ssize_t size = ::write(file.get(), left.data(), left.size());
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return fail(system_error("write to a memory file", errno));
    left.remove_prefix(static_cast<std::size_t>(size));
  }
  if (::lseek(file.get(), 0, SEEK_SET) != 0) return fail(system_error("rewind a memory file", errno));
  return file;
}

/// Spawned as a session of its own, with no signal blocked or ignored.
Result<pid_t> spawn_detached(std::vector<std::string> command, const Fd& input, const Fd& output) {
  auto environment = shim_environment();
  const std::string program = std::exchange(command[0], "gpumod");  // what people see in a process list
  std::vector<char*> arguments;
  for (auto& argument : command)
    arguments.push_back(argument.data());
  arguments.push_back(nullptr);
  std::vector<char*> variables;
  for (auto& variable : environment)
    variables.push_back(variable.data());
  variables.push_back(nullptr);

  posix_spawn_file_actions_t files;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawn_file_actions_adddup2(&files, input.get(), STDIN_FILENO);
  ::posix_spawn_file_actions_adddup2(&files, output.get(), STDOUT_FILENO);
  ::posix_spawn_file_actions_addopen(&files, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  posix_spawnattr_t attributes;
  ::posix_spawnattr_init(&attributes);
  sigset_t none;
  ::sigemptyset(&none);
  sigset_t all;
  ::sigfillset(&all);
  ::posix_spawnattr_setsigmask(&attributes, &none);
  ::posix_spawnattr_setsigdefault(&attributes, &all);
  ::posix_spawnattr_setflags(&attributes,
                             static_cast<short>(POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF));
  pid_t pid = 0;
  const int problem = ::posix_spawn(&pid, program.c_str(), &files, &attributes, arguments.data(), variables.data());
  ::posix_spawnattr_destroy(&attributes);
  ::posix_spawn_file_actions_destroy(&files);
  if (problem != 0) return fail(system_error(fmt::format("start {} as a shim", program), problem));
  return pid;
}

}  // namespace

std::vector<std::string> service_environment(const UnitSpec& spec, const std::filesystem::path& home,
                                             const std::string& mark) {
  std::map<std::string, std::string> variables;
  for (const auto& entry : inherited({"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_*", "XDG_*", "TZ"})) {
    const auto equals = entry.find('=');
    variables[entry.substr(0, equals)] = entry.substr(equals + 1);
  }
  variables.try_emplace("PATH", "/usr/local/bin:/usr/bin:/bin");
  variables.try_emplace("HOME", home.string());
  // Python's setproctitle writes titles over the environment that /proc shows, and with it over our marks, unless told
  // not to: https://pypi.org/project/setproctitle/ (SPT_NOENV).
  variables["SPT_NOENV"] = "1";
  for (const auto& [name, value] : spec.environment)
    variables[name] = value.reveal();
  variables[service_variable] = spec.tag;
  variables[home_variable] = mark;
  std::vector<std::string> entries;
  for (const auto& [name, value] : variables)
    entries.push_back(name + "=" + value);
  return entries;
}

Task<Result<LaunchReport>> launch_shim(std::vector<std::string> command, LaunchSpec spec) {
  const auto input = memory_file(to_text(spec));
  if (!input) co_return fail(input.error());
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) co_return fail(system_error("create a pipe", errno));
  const Fd answer(ends[0]);
  auto output = above_standard(Fd(ends[1]));
  if (!output) co_return fail(output.error());
  const auto pid = spawn_detached(std::move(command), *input, *output);
  if (!pid) co_return fail(pid.error());
  output->reset();

  // The first process only forks the shim; it is our child and must be reaped.
  const auto first = open_pidfd(*pid);
  if (first) {
    const auto ended = co_await wait_process_end(*first, now() + 30s);
    if (!ended) co_return fail(ended.error());
  }
  ::waitpid(*pid, nullptr, first ? WNOHANG : 0);

  const TimePoint deadline = now() + 60s;  // a program on a cold network file system may take long to execute
  std::string text;
  while (text.find('\n') == std::string::npos) {
    const auto ready = co_await wait_ready(answer.get(), Readiness::readable, deadline);
    if (!ready) co_return fail(ready.error());
    if (!*ready)
      co_return fail(ErrorCode::failed,
                     fmt::format("{}: the shim did not say within 60 s whether the program runs", spec.unit),
                     "Is the program on a file system that does not answer?");
    char buffer[4096];
    const ssize_t size = ::read(answer.get(), buffer, sizeof buffer);
    if (size > 0) {
      text.append(buffer, static_cast<std::size_t>(size));
      continue;
    }
    const int reason = errno;
    if (size < 0 && (reason == EAGAIN || reason == EINTR)) continue;
    co_return fail(ErrorCode::failed, fmt::format("{}: the shim ended before it could start the program", spec.unit));
  }
  co_return launch_report_from(text);
}

}  // namespace gpumod::local
