#include "sim/vllm_process.h"

#include <csignal>

#include <sys/signalfd.h>
#include <unistd.h>

namespace gpumod::sim {

namespace {

sigset_t ending() {
  sigset_t set;
  ::sigemptyset(&set);
  ::sigaddset(&set, SIGTERM);
  ::sigaddset(&set, SIGINT);
  return set;
}

}  // namespace

void block_ending_signals() {
  const auto set = ending();
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
}

Fd ending_signals() {
  const auto set = ending();
  return Fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
}

Task<int> next_ending_signal(int signals) {
  for (;;) {
    signalfd_siginfo info;
    const auto got = ::read(signals, &info, sizeof info);
    if (got == static_cast<ssize_t>(sizeof info)) co_return static_cast<int>(info.ssi_signo);
    if (got < 0 && errno != EAGAIN && errno != EINTR) co_return -1;
    const auto ready = co_await wait_ready(signals, Readiness::readable);
    if (!ready) co_return -1;
  }
}

}  // namespace gpumod::sim
