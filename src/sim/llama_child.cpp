#include "sim/llama_child.h"

#include <csignal>
#include <filesystem>

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/text.h"
#include "sim/llama_single.h"

extern char** environ;

namespace gpumod::sim {

namespace {

Result<std::pair<Fd, Fd>> make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail(system_error("pipe", errno));
  return std::pair(Fd(ends[0]), Fd(ends[1]));
}

std::vector<char*> pointers(const std::vector<std::string>& words) {
  std::vector<char*> list;
  for (const auto& word : words)
    list.push_back(const_cast<char*>(word.c_str()));
  list.push_back(nullptr);
  return list;
}

/// In the child, between fork and exec: nothing but system calls.
[[noreturn]] void become(const std::vector<char*>& arguments, const std::vector<char*>& settings, int input,
                         int output) {
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::dup2(input, STDIN_FILENO);
  ::dup2(output, STDOUT_FILENO);
  ::dup2(output, STDERR_FILENO);
  ::execve("/proc/self/exe", arguments.data(), settings.data());
  ::_exit(127);
}

}  // namespace

Result<std::shared_ptr<LlamaChild>> LlamaChild::start(const std::vector<std::string>& words,
                                                      std::uint16_t router_port) {
  auto input = TRY(make_pipe());
  auto output = TRY(make_pipe());
  std::vector<std::string> variables;
  for (char** variable = environ; *variable; ++variable)
    if (!std::string_view(*variable).starts_with("LLAMA_SERVER_ROUTER_PORT=")) variables.emplace_back(*variable);
  variables.push_back(fmt::format("LLAMA_SERVER_ROUTER_PORT={}", router_port));
  auto argv = words;
  // The program tells by its name which one it is to be.
  if (std::filesystem::path(argv.front()).filename() != "llama-server") argv.front() = "llama-server";
  const auto arguments = pointers(argv);
  const auto settings = pointers(variables);

  const pid_t pid = ::fork();
  if (pid < 0) return fail(system_error("fork", errno));
  if (pid == 0) become(arguments, settings, input.first.get(), output.second.get());
  std::shared_ptr<LlamaChild> child(new LlamaChild());
  child->pid_ = pid;
  child->pidfd_.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  child->input_ = std::move(input.second);
  child->output_ = std::move(output.first);
  if (!child->pidfd_) {
    const int reason = errno;
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    return fail(system_error("pidfd_open", reason));
  }
  return child;
}

void LlamaChild::order_to_end() {
  const auto line = std::string(child_order) + '\n';
  // One that has just ended does not read it; its end is noticed anyway.
  [[maybe_unused]] const auto written = ::write(input_.get(), line.data(), line.size());
}

void LlamaChild::kill() {
  if (pid_ > 0) ::kill(pid_, SIGKILL);
}

Task<int> LlamaChild::end() {
  (void)co_await wait_ready(pidfd_.get(), Readiness::readable);
  int status = 0;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  co_return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

std::string own_program() {
  const auto text = read_pseudo_file("/proc/self/cmdline");
  const std::filesystem::path called = text ? text->substr(0, text->find('\0')) : "";
  std::error_code problem;
  // Found through PATH: then only the file itself is known.
  if (called.filename() != "llama-server" || !called.has_parent_path())
    return std::filesystem::read_symlink("/proc/self/exe", problem).string();
  return std::filesystem::absolute(called, problem).string();
}

Result<std::uint16_t> free_port() {
  const Fd probe(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  if (!probe || ::bind(probe.get(), reinterpret_cast<const sockaddr*>(&address), size) != 0 ||
      ::getsockname(probe.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0)
    return fail(system_error("find a free port", errno));
  return ntohs(address.sin_port);
}

}  // namespace gpumod::sim
