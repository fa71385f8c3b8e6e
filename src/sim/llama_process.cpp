#include "sim/llama_process.h"

#include <csignal>

#include <fcntl.h>
#include <pthread.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "sim/llama_log.h"

namespace gpumod::sim {

namespace {

sigset_t ending_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

Task<void> watch_signals(int fd, std::function<void()> first) {
  for (bool again = false;; again = true) {
    (void)co_await wait_ready(fd, Readiness::readable);
    signalfd_siginfo info{};
    if (::read(fd, &info, sizeof info) != sizeof info) continue;
    if (again) {
      llama_print("Received second interrupt, terminating immediately.");
      leave(1);
    }
    first();
  }
}

}  // namespace

void leave(int code) {
  ::_exit(code);
}

void hear_signals(Loop& loop, std::function<void()> first) {
  const auto set = ending_signals();
  ::pthread_sigmask(SIG_BLOCK, &set, nullptr);
  const int fd = ::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  loop.spawn(watch_signals(fd, std::move(first)));
}

void ignore_signals() {
  std::signal(SIGTERM, SIG_IGN);
  std::signal(SIGINT, SIG_IGN);
}

Task<void> read_lines(int fd, std::function<void(std::string)> line, std::function<void()> end) {
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
  std::string text;
  for (;;) {
    (void)co_await wait_ready(fd, Readiness::readable);
    char buffer[16384];
    const auto count = ::read(fd, buffer, sizeof buffer);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (count <= 0) break;
    text.append(buffer, static_cast<std::size_t>(count));
    for (auto feed = text.find('\n'); feed != std::string::npos; feed = text.find('\n')) {
      line(text.substr(0, feed));
      text.erase(0, feed + 1);
    }
  }
  if (!text.empty()) line(text);
  end();
}

}  // namespace gpumod::sim
