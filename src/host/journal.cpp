#include "host/journal.h"

#include <algorithm>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <fcntl.h>
#include <fmt/format.h>
#include <glob.h>
#include <string.h>
#include <systemd/sd-journal.h>
#include <unistd.h>

#include "base/text.h"

namespace gpumod {

namespace asio = boost::asio;

namespace {

constexpr std::size_t field_bytes_max = 64 * 1024;
constexpr const char* readable_hint =
    "Let journald keep a journal for this user (Storage=persistent in journald.conf, or `mkdir /var/log/journal`), or "
    "add "
    "the user to the group systemd-journal.";
/// systemd's "unit entered failed state" (systemd.journal-fields(7), catalogue message SD_MESSAGE_UNIT_FAILURE_RESULT).
constexpr const char* failure_message = "d9b373ed55a64feb8242e02dbe79a49c";

struct JournalClose {
  void operator()(sd_journal* journal) const { sd_journal_close(journal); }
};
using Journal = std::unique_ptr<sd_journal, JournalClose>;

Result<Journal> open_journal() {
  sd_journal* raw = nullptr;
  if (const int r = sd_journal_open(&raw, SD_JOURNAL_LOCAL_ONLY); r < 0)
    return fail(ErrorCode::environment, fmt::format("the systemd journal cannot be opened: {}", ::strerror(-r)),
                readable_hint);
  Journal journal(raw);
  sd_journal_set_data_threshold(journal.get(), field_bytes_max);
  if (sd_journal_has_persistent_files(journal.get()) <= 0 && sd_journal_has_runtime_files(journal.get()) <= 0)
    return fail(ErrorCode::environment, "there is no systemd journal that this user may read", readable_hint);
  return journal;
}

/// Lines (A and B) or (C and D) …: one call is one term.
void match_all(sd_journal* journal, const std::vector<std::string>& fields) {
  sd_journal_add_disjunction(journal);
  for (const auto& field : fields)
    sd_journal_add_match(journal, field.data(), field.size());
}

std::string own_uid() {
  return fmt::format("_UID={}", ::getuid());
}

/// systemd takes it from us for transient units (systemd_unit.cpp).
std::string identifier_of(const std::string& unit) {
  return unit.substr(0, unit.rfind('.'));
}

std::string field(sd_journal* journal, const char* name) {
  const void* data = nullptr;
  std::size_t size = 0;
  if (sd_journal_get_data(journal, name, &data, &size) < 0) return {};
  const std::string_view text(static_cast<const char*>(data), size);
  const auto equals = text.find('=');
  return equals == std::string_view::npos ? std::string() : std::string(text.substr(equals + 1));
}

/// The invocation that wrote the entry, or that systemd's entry is about.
std::string invocation_of(sd_journal* journal) {
  auto id = field(journal, "_SYSTEMD_INVOCATION_ID");
  // systemd's own entries carry systemd's own invocation there, if any.
  if (auto about = field(journal, "USER_INVOCATION_ID"); !about.empty()) id = std::move(about);
  return id;
}

WallTime time_of(sd_journal* journal) {
  std::uint64_t us = 0;
  sd_journal_get_realtime_usec(journal, &us);
  return WallTime(std::chrono::microseconds(us));
}

std::vector<LogLine> lines_of(sd_journal* journal) {
  std::vector<LogLine> lines;
  const auto text = field(journal, "MESSAGE");
  for (auto line : split_lines(text)) {
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.push_back({time_of(journal), std::string(line)});
  }
  if (text.empty()) lines.push_back({time_of(journal), ""});
  return lines;
}

/// What the unit and systemd about the unit wrote, whatever the invocation.
void match_unit(sd_journal* journal, const std::string& unit) {
  match_all(journal, {"_SYSTEMD_USER_UNIT=" + unit, own_uid()});
  match_all(journal, {"USER_UNIT=" + unit, own_uid()});
}

class RunReader {
 public:
  explicit RunReader(const JournalQuery& query) : query_(query) {}

  Result<std::vector<LogLine>> read() {
    journal_ = TRY(open_journal());
    if (query_.invocation.empty()) query_.invocation = newest_invocation();
    if (query_.invocation.empty()) return nothing();
    match_run();
    auto lines = collect();
    if (query_.ended) lines = until_settled(std::move(lines));
    if (lines.empty()) return nothing();
    return lines;
  }

 private:
  tl::unexpected<Error> nothing() const {
    if (system_journal_is_hidden())
      return fail(ErrorCode::environment,
                  fmt::format("the journal holds no line of {} that this user may read", query_.unit), readable_hint);
    return fail(ErrorCode::not_found,
                query_.invocation.empty()
                    ? fmt::format("the journal holds no line of {}: it has not run as far back as the journal reaches",
                                  query_.unit)
                    : fmt::format("the journal holds no line of this run of {} ({})", query_.unit, query_.invocation),
                fmt::format("See `journalctl --user-unit={}`.", query_.unit));
  }

  std::string newest_invocation() {
    sd_journal_flush_matches(journal_.get());
    match_unit(journal_.get(), query_.unit);
    sd_journal_seek_tail(journal_.get());
    // A few entries may lack it (see the head of journal.h).
    for (int tries = 0; tries < 1000 && sd_journal_previous(journal_.get()) > 0; ++tries)
      if (auto id = invocation_of(journal_.get()); !id.empty()) return id;
    return {};
  }

  void match_run() {
    auto* journal = journal_.get();
    sd_journal_flush_matches(journal);
    match_all(journal, {"_SYSTEMD_INVOCATION_ID=" + query_.invocation});
    match_all(journal, {"USER_INVOCATION_ID=" + query_.invocation, own_uid()});
    if (!query_.started) return;
    match_all(journal, {"_SYSTEMD_USER_UNIT=" + query_.unit, own_uid()});
    match_all(journal, {"SYSLOG_IDENTIFIER=" + identifier_of(query_.unit), "_TRANSPORT=stdout"});
    if (query_.main_pid > 0) match_all(journal, {fmt::format("_PID={}", query_.main_pid), own_uid()});
  }

  /// The entry under the cursor is of this run: by its invocation, or, lacking one, by its time and the match it met.
  bool belongs() const {
    const auto id = invocation_of(journal_.get());
    if (!id.empty()) return id == query_.invocation;
    const auto uid = field(journal_.get(), "_UID");  // may be missing, too
    return query_.started && time_of(journal_.get()) >= *query_.started &&
           (uid.empty() || uid == std::to_string(::getuid()));
  }

  std::vector<LogLine> collect() {
    std::vector<LogLine> newest_first;
    failure_seen_ = false;
    output_seen_ = false;
    sd_journal_seek_tail(journal_.get());
    while (newest_first.size() < query_.limit && sd_journal_previous(journal_.get()) > 0) {
      if (query_.started && time_of(journal_.get()) < *query_.started) break;
      if (!belongs()) continue;
      output_seen_ = output_seen_ || field(journal_.get(), "SYSLOG_IDENTIFIER") != "systemd";
      failure_seen_ = failure_seen_ || field(journal_.get(), "MESSAGE_ID") == failure_message;
      auto lines = lines_of(journal_.get());
      std::move(lines.rbegin(), lines.rend(), std::back_inserter(newest_first));
    }
    if (newest_first.size() > query_.limit) newest_first.resize(query_.limit);
    std::reverse(newest_first.begin(), newest_first.end());
    return newest_first;
  }

  /// journald tells of new entries at most four times a second, too rarely to wait for while somebody waits for the
  /// reason of a failure; so this also looks by itself, for at most a second in all.
  std::vector<LogLine> until_settled(std::vector<LogLine> lines) {
    constexpr Duration between_looks = 10ms;
    constexpr std::uint64_t between_looks_us = 10'000;
    // Output and systemd's lines come on different sockets, in no fixed order, and a busy journald takes its time:
    // systemd's word of the end does not mean that the server's words are there. One that said nothing yet gets more
    // time.
    constexpr int quiet_looks_after_output = 3;
    constexpr int quiet_looks_without_output = 30;
    const auto deadline = now() + 1s;
    int quiet = 0;
    while (now() + between_looks < deadline) {
      sd_journal_wait(journal_.get(), between_looks_us);
      auto again = collect();
      const bool complete = query_.failed ? failure_seen_ : !again.empty();
      const bool same = again.size() == lines.size() && (again.empty() || again.back().time == lines.back().time);
      quiet = complete && same ? quiet + 1 : 0;
      lines = std::move(again);
      if (quiet >= (output_seen_ ? quiet_looks_after_output : quiet_looks_without_output)) break;
    }
    return lines;
  }

  JournalQuery query_;
  Journal journal_;
  bool failure_seen_ = false;
  bool output_seen_ = false;
};

}  // namespace

/// Files that exist and that we may not open: the difference between "nothing was logged" and "we cannot see it".
bool system_journal_is_hidden(const std::filesystem::path& root) {
  bool found = false;
  for (const char* pattern : {"var/log/journal/*/system.journal", "run/log/journal/*/system.journal"}) {
    glob_t paths{};
    if (::glob((root / pattern).c_str(), GLOB_NOSORT, nullptr, &paths) == 0)
      for (std::size_t i = 0; i < paths.gl_pathc; ++i)
        found = found || ::access(paths.gl_pathv[i], R_OK) != 0;
    ::globfree(&paths);
  }
  return found;
}

Result<std::vector<LogLine>> read_journal(const JournalQuery& query) {
  return RunReader(query).read();
}

namespace {

/// Owned by its coroutine; the registration only knows it while that lives, so the loop may end before either.
struct Follower {
  Follower(Loop& loop, std::string unit_name, std::function<void(const LogLine&)> line_callback, Duration longest_lag)
      : unit(std::move(unit_name)),
        callback(std::move(line_callback)),
        lag(longest_lag),
        since_us(static_cast<std::uint64_t>(wall_now().time_since_epoch().count())),
        descriptor(loop.context()),
        timer(loop.context()) {}

  void release() {
    released = true;
    boost::system::error_code ignored;
    descriptor.cancel(ignored);
    timer.cancel();
  }

  /// On a helper thread.
  void open() {
    auto opened = open_journal();
    if (!opened) {
      problem = std::move(opened).error();
      return;
    }
    journal = std::move(*opened);
    match_unit(journal.get(), unit);
    match_all(journal.get(), {"SYSLOG_IDENTIFIER=" + identifier_of(unit), own_uid()});
    sd_journal_seek_realtime_usec(journal.get(), since_us);
    fd = sd_journal_get_fd(journal.get());
    if (fd < 0)
      problem =
          Error{ErrorCode::environment, fmt::format("the journal cannot be followed: {}", ::strerror(-fd)), {}, {}};
  }

  /// On a helper thread. Bounded, so that a chatty server does not fill memory before a line is delivered.
  void read() {
    sd_journal_process(journal.get());
    more = true;
    while (fresh.size() < 500) {
      if (sd_journal_next(journal.get()) <= 0) {
        more = false;
        break;
      }
      auto lines = lines_of(journal.get());
      for (auto& line : lines)
        line.invocation = invocation_of(journal.get());
      std::move(lines.begin(), lines.end(), std::back_inserter(fresh));
    }
  }

  std::string unit;
  std::function<void(const LogLine&)> callback;
  Duration lag;
  std::uint64_t since_us;
  asio::posix::stream_descriptor descriptor;
  asio::steady_timer timer;
  Journal journal;
  int fd = -1;
  bool released = false;
  bool more = false;
  std::vector<LogLine> fresh;
  std::optional<Error> problem;
};

/// Waits until the journal changed, or until it wants to be looked at without a notification: on network file systems,
/// and because somebody cannot wait for one.
Task<void> wait_for_change(std::shared_ptr<Follower> follower) {
  boost::system::error_code ignored;
  std::uint64_t wake_us = UINT64_MAX;
  sd_journal_get_timeout(follower->journal.get(), &wake_us);
  auto wake_at = std::chrono::time_point_cast<asio::steady_timer::duration>(now() + follower->lag);
  if (wake_us != UINT64_MAX)
    wake_at = std::min(wake_at, asio::steady_timer::time_point(std::chrono::microseconds(wake_us)));
  follower->timer.expires_at(wake_at);
  follower->timer.async_wait([weak = std::weak_ptr(follower)](boost::system::error_code cancelled) {
    boost::system::error_code unused;
    if (const auto alive = weak.lock(); alive && !cancelled) alive->descriptor.cancel(unused);
  });
  co_await follower->descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                                           asio::redirect_error(asio::use_awaitable, ignored));
  follower->timer.cancel();
}

constexpr Duration before_opening = 50ms;

Task<void> follow(std::shared_ptr<Follower> follower) {
  // Named, not written in place: GCC 12 destroys a lambda with captures twice inside a co_await expression.
  const std::function<void()> open = [follower] { follower->open(); };
  const std::function<void()> read = [follower] { follower->read(); };
  // Opening it costs milliseconds. Whoever lets go of it at once need not pay them, and no line is lost by it: those
  // since the beginning are read.
  co_await wait_for(before_opening);
  if (follower->released) co_return;
  co_await run_blocking(open);
  if (!follower->problem) {
    const int duplicate = ::fcntl(follower->fd, F_DUPFD_CLOEXEC, 0);
    boost::system::error_code failed(duplicate < 0 ? errno : 0, boost::system::system_category());
    if (!failed) follower->descriptor.assign(duplicate, failed);
    if (failed)
      follower->problem =
          Error{ErrorCode::failed, fmt::format("the journal cannot be followed: {}", failed.message()), {}, {}};
  }
  if (follower->problem) {
    const LogLine line{wall_now(), fmt::format("gpumod: {}", follower->problem->message)};
    if (!follower->released) follower->callback(line);
    co_return;
  }
  while (!follower->released) {
    co_await run_blocking(read);
    const auto lines = std::exchange(follower->fresh, {});
    for (const auto& line : lines) {
      if (follower->released) break;
      follower->callback(line);
    }
    if (follower->released || follower->more) continue;
    co_await wait_for_change(follower);
  }
}

}  // namespace

Registration follow_journal(Loop& loop, const std::string& unit, std::function<void(const LogLine&)> callback,
                            Duration lag) {
  auto follower = std::make_shared<Follower>(loop, unit, std::move(callback), lag);
  const std::weak_ptr<Follower> weak = follower;
  loop.spawn(follow(std::move(follower)));
  return Registration([weak] {
    if (const auto alive = weak.lock()) alive->release();
  });
}

}  // namespace gpumod
