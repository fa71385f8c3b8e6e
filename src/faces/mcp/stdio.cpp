#include "faces/mcp/stdio.h"

#include <cerrno>
#include <climits>
#include <csignal>

#include <boost/json.hpp>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "faces/cli/run.h"
#include "faces/cli/version.h"
#include "faces/mcp/hands.h"

namespace gpumod::mcp {

namespace json = boost::json;

namespace {

constexpr std::size_t progress_stops_at = 256 << 10;
constexpr std::size_t listening_stops_at = 4 << 20;
constexpr Duration patience_at_the_end = 5s;
/// Between two looks at what has become of a change or of followed resources.
constexpr Duration between_ticks = 2s;

/// Regular files are always ready, and cannot be waited for.
bool can_be_waited_for(int fd) {
  struct stat info {};
  return ::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode);
}

bool is_writable(int fd) {
  pollfd question{fd, POLLOUT, 0};
  return ::poll(&question, 1, 0) > 0;
}

}  // namespace

Stdio::Stdio(Loop& loop, Session& session, int in, int out)
    : loop_(loop),
      session_(session),
      in_(in),
      out_(out),
      waits_for_input_(can_be_waited_for(in)),
      waits_for_output_(can_be_waited_for(out)),
      more_(loop),
      less_(loop) {}

void Stdio::send(const json::object& message) {
  if (gone_) return;
  if (unsent_.size() > progress_stops_at && text_in(message, "method") == "notifications/progress") return;
  // Boost writes 0.5 as 5E-1: valid, and as other programs expect it only without the exponent.
  unsent_ += cli::json_text(message);
  unsent_ += '\n';
  flush();
  if (!unsent_.empty()) more_.set();
}

/// As much as goes without waiting. A pipe that is writable takes PIPE_BUF bytes at once.
void Stdio::flush() {
  std::size_t done = 0;
  while (!gone_ && done < unsent_.size() && (!waits_for_output_ || is_writable(out_))) {
    const auto piece = std::min<std::size_t>(unsent_.size() - done, PIPE_BUF);
    ssize_t n = ::send(out_, unsent_.data() + done, piece, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno == ENOTSOCK) n = ::write(out_, unsent_.data() + done, piece);
    if (n > 0)
      done += static_cast<std::size_t>(n);
    else if (n < 0 && errno == EAGAIN)
      break;
    else if (n < 0 && errno != EINTR)
      gone_ = true;
  }
  unsent_.erase(0, done);
  if (gone_) unsent_.clear();
  if (unsent_.size() < listening_stops_at) less_.set();
}

Task<void> Stdio::write_rest() {
  while (!gone_) {
    (void)co_await more_.wait();
    more_.reset();
    while (!unsent_.empty() && !gone_) {
      const auto ready = co_await wait_ready(out_, Readiness::writable);
      if (!ready) gone_ = true;
      flush();
    }
  }
}

void Stdio::take(std::string_view line) {
  if (line.find_first_not_of(" \t\r") == std::string_view::npos) return;
  session_.receive(line, [this](const json::object& message) { send(message); });
  if (on_message) on_message();
}

void Stdio::take_lines() {
  std::size_t begin = 0;
  for (auto end = received_.find('\n'); end != std::string::npos; end = received_.find('\n', begin)) {
    if (!std::exchange(skipping_, false)) take(std::string_view(received_).substr(begin, end - begin));
    begin = end + 1;
  }
  received_.erase(0, begin);
  if (received_.size() <= message_limit) return;
  if (!std::exchange(skipping_, true)) take(received_);  // which says that it is too long
  received_.clear();
}

Task<void> Stdio::run() {
  loop_.spawn(write_rest());
  while (!gone_) {
    if (unsent_.size() >= listening_stops_at) {
      less_.reset();
      (void)co_await less_.wait();
      continue;
    }
    if (waits_for_input_) {
      const auto ready = co_await wait_ready(in_, Readiness::readable);
      if (!ready) break;
    }
    char buffer[64 << 10];
    const ssize_t n = ::read(in_, buffer, sizeof buffer);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (n <= 0) break;
    received_.append(buffer, static_cast<std::size_t>(n));
    take_lines();
  }
  if (!skipping_) take(std::exchange(received_, {}));  // a last line may lack its end
  const TimePoint deadline = now() + patience_at_the_end;
  // Nothing signals that the last answer was given and read.
  while (!gone_ && (session_.under_way() > 0 || !unsent_.empty()) && now() < deadline)
    co_await wait_for(10ms);
}

namespace {

Task<void> tick_while_needed(GpumodOffer& offer, Signal& stirred) {
  for (;;) {
    (void)co_await stirred.wait();
    stirred.reset();
    while (offer.has_to_tick()) {
      co_await wait_for(between_ticks);
      offer.tick();
    }
  }
}

Task<bool> carry(Stdio& stdio) {
  co_await stdio.run();
  co_return true;
}

}  // namespace

int serve_stdio(const Paths& paths) {
  if (::isatty(STDIN_FILENO))
    cli::complain("gpumod mcp talks to a program, in JSON: gpumod mcp install CLIENT sets one up. Ctrl-D ends it.\n");
  ::signal(SIGPIPE, SIG_IGN);
  Loop loop;
  VerbHands hands(loop, paths);
  GpumodOffer offer(hands, Scrubber(paths.home.string()), text_in(cli::version_json(), "version"));
  Session session(offer);
  offer.followed = [&session] { return session.followed(); };
  offer.on_changed = [&session](const std::string& uri) { session.changed(uri); };
  Signal stirred(loop);
  Stdio stdio(loop, session, STDIN_FILENO, STDOUT_FILENO);
  stdio.on_message = [&stirred] { stirred.set(); };
  loop.spawn(tick_while_needed(offer, stirred));
  (void)loop.run_until_done(carry(stdio));
  // What helper threads still look at refers to all of this: the process ends here and now. A change goes on in its
  // worker, as after a closed terminal.
  ::_exit(0);
}

}  // namespace gpumod::mcp
