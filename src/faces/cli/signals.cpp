#include "faces/cli/signals.h"

#include <cerrno>
#include <string_view>

#include <unistd.h>

namespace gpumod::cli {

namespace {

volatile sig_atomic_t interrupted = 0;
volatile sig_atomic_t ending = 0;
volatile sig_atomic_t was_suspended = 0;

void on_signal(int number) {
  const int saved = errno;
  if (number == SIGINT) {
    interrupted = interrupted + 1;
  } else if (number == SIGTSTP) {
    constexpr std::string_view show_cursor = "\x1b[?25h";
    if (::write(STDOUT_FILENO, show_cursor.data(), show_cursor.size()) > 0) was_suspended = 1;
    ::kill(::getpid(), SIGSTOP);
  } else {
    ending = number;
  }
  errno = saved;
}

}  // namespace

Signals::Signals(bool live) {
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    if (numbers[i] == SIGTSTP && !live) continue;
    ::sigaction(numbers[i], nullptr, &before_[i]);
    installed_[i] = before_[i].sa_handler != SIG_IGN;
    if (!installed_[i]) continue;
    struct sigaction action {};
    action.sa_handler = on_signal;  // no SA_RESTART: waiting must wake up
    ::sigaction(numbers[i], &action, nullptr);
  }
}

Signals::~Signals() {
  for (std::size_t i = 0; i < numbers.size(); ++i)
    if (installed_[i]) ::sigaction(numbers[i], &before_[i], nullptr);
}

int Signals::interrupts() {
  return interrupted;
}
int Signals::ended_by() {
  return ending;
}
bool Signals::take_suspension() {
  const bool was = was_suspended != 0;
  was_suspended = 0;
  return was;
}

}  // namespace gpumod::cli
