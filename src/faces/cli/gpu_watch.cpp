// Three ways to end it, and all are ordinary: a signal, a reader that has gone, and a first look that fails. Signals
// are taken from a descriptor, so that a wait ends when one comes; a reader's going is asked of the pipe itself, because
// while nothing changes nothing is written that could fail.

#include "faces/cli/gpu_watch.h"

#include <algorithm>
#include <cerrno>
#include <climits>

#include <boost/json.hpp>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/text.h"
#include "faces/cli/fields.h"
#include "faces/cli/memory_bar.h"
#include "faces/cli/progress.h"
#include "faces/cli/render.h"
#include "faces/cli/table.h"
#include "verbs/context.h"

namespace gpumod::cli {

namespace json = boost::json;

namespace {

/// These signals arrive on a descriptor as long as it lives. One that our caller made us ignore stays ignored.
class SignalStream {
 public:
  explicit SignalStream(std::initializer_list<int> numbers) {
    sigset_t wanted;
    ::sigemptyset(&wanted);
    for (const int number : numbers) {
      struct sigaction action {};
      if (::sigaction(number, nullptr, &action) == 0 && action.sa_handler != SIG_IGN) ::sigaddset(&wanted, number);
    }
    ::pthread_sigmask(SIG_BLOCK, &wanted, &before_);
    fd_ = Fd(::signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK));
  }
  ~SignalStream() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalStream(const SignalStream&) = delete;
  SignalStream& operator=(const SignalStream&) = delete;

  int descriptor() const { return fd_.get(); }
  /// 0: none is waiting.
  int take() const {
    signalfd_siginfo info{};
    return ::read(fd_.get(), &info, sizeof info) == sizeof info ? static_cast<int>(info.ssi_signo) : 0;
  }

 private:
  sigset_t before_{};
  Fd fd_;
};

/// A write to a pipe without a reader is then an error like any other.
class IgnoredBrokenPipe {
 public:
  IgnoredBrokenPipe() { ::sigaction(SIGPIPE, &ignore_, &before_); }
  ~IgnoredBrokenPipe() { ::sigaction(SIGPIPE, &before_, nullptr); }
  IgnoredBrokenPipe(const IgnoredBrokenPipe&) = delete;
  IgnoredBrokenPipe& operator=(const IgnoredBrokenPipe&) = delete;

 private:
  static struct sigaction ignoring() {
    struct sigaction action {};
    action.sa_handler = SIG_IGN;
    return action;
  }
  struct sigaction ignore_ = ignoring();
  struct sigaction before_ {};
};

/// Past stdio, whose buffer would remember what a reader that has gone did not take. A reader that takes nothing for
/// now (a pager) is waited for, but not beyond a signal: so much as is always taken at once is written at a time.
Result<void> write_out(std::string_view words, const SignalStream& signals) {
  while (!words.empty()) {
    pollfd questions[] = {{STDOUT_FILENO, POLLOUT, 0}, {signals.descriptor(), POLLIN, 0}};
    if (::poll(questions, 2, -1) < 0) continue;
    if (questions[0].revents == 0) return fail(ErrorCode::cancelled, "ended while nobody read");
    const ssize_t n = ::write(STDOUT_FILENO, words.data(), std::min<std::size_t>(words.size(), PIPE_BUF));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      const int reason = errno;
      const bool nobody_reads = reason == EPIPE || reason == EIO;  // a pipe's other end, or a terminal, has gone
      return fail(
          system_error("write to standard output", reason, nobody_reads ? ErrorCode::cancelled : ErrorCode::failed));
    }
    words.remove_prefix(static_cast<std::size_t>(n));
  }
  return {};
}

std::string drawn(const json::value& event, const Screen& screen) {
  if (const auto& problem = member(event, "problem"); !problem.is_null())
    return paragraph(text(member(problem, "message")), screen, 2, "!", Ink::yellow) +
           paragraph(text(member(problem, "hint")), screen, 2);
  std::string out;
  for (const auto& gpu : elements(member(event, "gpus")))
    out += (out.empty() ? "" : "\n") + render_ledger(gpu, screen);
  return out;
}

std::string as_lines(const json::value& event, const Screen& screen) {
  const auto time = local_time(member(event, "time"), screen);
  if (const auto& problem = member(event, "problem"); !problem.is_null())
    return fmt::format("{} {}\n", time, text(member(problem, "message")));
  std::string out;
  for (const auto& gpu : elements(member(event, "gpus"))) {
    const auto lines = ledger_lines(gpu);
    for (const auto line : split_lines(lines))
      out += fmt::format("{} {}\n", time, line);
  }
  return out;
}

class Watch {
 public:
  Watch(const Output& output, const SignalStream& signals)
      : output_(output), signals_(signals), screen_(output.out), area_(STDOUT_FILENO), live_(is_live(output)) {}

  /// Redrawn in place: for a person at a terminal.
  static bool is_live(const Output& output) { return !output.json && output.out.live; }
  void show(json::object event) {
    event.erase("event");
    last_ = std::move(event);
    if (live_)
      redraw();
    else
      written_ = write_out(output_.json ? json_text(last_) + "\n" : as_lines(last_, screen_), signals_);
  }
  void redraw() {
    if (!live_ || last_.is_null()) return;
    screen_.measure(STDOUT_FILENO);
    const auto picture = drawn(last_, screen_);
    std::vector<std::string> lines{paint(screen_, Ink::dim, title())};
    for (const auto line : split_lines(picture))
      lines.emplace_back(line);
    // Lines above the screen's top could not be redrawn.
    const auto room = static_cast<std::size_t>(std::max(2, screen_.height - 1));
    if (lines.size() > room) {
      lines.resize(room);
      lines.back() = paint(screen_, Ink::dim, std::string(glyph(screen_, Glyph::ellipsis)));
    }
    area_.draw(lines, screen_);
  }
  void suspend() { area_.clear(); }
  /// The last picture stays, as ordinary text.
  void finish() {
    area_.clear();
    if (live_ && !last_.is_null()) written_ = write_out(drawn(last_, screen_), signals_);
  }
  const Result<void>& written() const { return written_; }

 private:
  std::string title() const {
    const auto words = fmt::format("As of {}; Ctrl-C ends this.", local_time(member(last_, "time"), screen_));
    return fit(screen_, words, std::max(1, screen_.width - 1));
  }

  const Output& output_;
  const SignalStream& signals_;
  Screen screen_;
  LiveArea area_;
  bool live_;
  json::value last_;
  Result<void> written_;
};

Task<void> mind_signals(const SignalStream& signals, Watch& watch, Context& context) {
  for (;;) {
    const auto ready = co_await wait_ready(signals.descriptor(), Readiness::readable);
    if (!ready) co_return;
    for (int number = signals.take(); number != 0; number = signals.take()) {
      if (number == SIGWINCH) {
        watch.redraw();
      } else if (number == SIGTSTP) {
        watch.suspend();
        ::raise(SIGSTOP);
        watch.redraw();
      } else if (context.ending().is_set()) {
        watch.suspend();  // asked twice: a look that hangs in the driver is not waited for
        ::_exit(0);
      } else {
        context.ending().set();
      }
    }
  }
}

Task<void> mind_reader(Context& context) {
  // Only pipes and sockets tell; of a file and a terminal there is nothing to be told.
  const auto gone = co_await wait_ready(STDOUT_FILENO, Readiness::priority);
  if (gone && *gone) context.ending().set();
}

}  // namespace

int run_gpu_watch(const Paths& paths, const Invocation& invocation, const Output& output) {
  const IgnoredBrokenPipe ignored;
  const SignalStream signals = Watch::is_live(output)
                                   ? SignalStream({SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGTSTP})
                                   : SignalStream({SIGINT, SIGTERM, SIGHUP, SIGQUIT});
  Watch watch(output, signals);
  Loop loop;
  std::optional<Context> context;
  context.emplace(loop, paths, [&](json::object event) {
    if (text(member(event, "event")) != "gpus") return;
    watch.show(std::move(event));
    if (!watch.written()) context->ending().set();
  });
  loop.spawn(mind_signals(signals, watch, *context));
  loop.spawn(mind_reader(*context));
  const auto answer = loop.run_until_done(invocation.verb->handler(*context, invocation.request));
  watch.finish();
  if (!answer) return conclude(answer.error(), output);
  if (!watch.written() && watch.written().error().code != ErrorCode::cancelled)
    return conclude(watch.written().error(), output);
  return 0;
}

}  // namespace gpumod::cli
