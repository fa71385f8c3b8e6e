#include "host/shim.h"

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/local_log.h"
#include "host/local_processes.h"
#include "host/local_state.h"
#include "host/processes.h"

namespace gpumod {

namespace {

using namespace local;

/// Exit codes of a program that could not be executed, as systemd numbers them.
constexpr int exit_chdir = 200;
constexpr int exit_exec = 203;

/// What a child tells through its close-on-exec pipe when it does not get as far as exec.
struct StartFailure {
  int exit_code = 0;
  int error_number = 0;
};

std::vector<char*> pointers_to(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (auto& text : texts)
    pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

Result<std::string> read_whole(int fd) {
  std::string text;
  char buffer[64 * 1024];
  for (;;) {
    const ssize_t size = ::read(fd, buffer, sizeof buffer);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return fail(system_error("read what to run", errno));
    if (size == 0) return text;
    text.append(buffer, static_cast<std::size_t>(size));
  }
}

void point_at_null(int fd) {
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (null >= 0 && null != fd) {
    ::dup2(null, fd);
    ::close(null);
  }
}

class Shim {
 public:
  explicit Shim(LaunchSpec spec) : spec_(std::move(spec)), log_(spec_.directory, spec_.invocation) {}
  int run();

 private:
  Result<void> prepare();
  bool take_lock(std::string& who);
  void report(LaunchReport::Kind kind, std::string message = {}, std::string hint = {});
  /// Starts a program with our pipe as its output. Errors: failed, saying why; `failure` tells a program's fault from
  /// ours.
  Result<pid_t> start_program(const std::vector<std::string>& argv, std::vector<std::string> environment,
                              StartFailure& failure);
  [[noreturn]] void become_program(char* const* argv, char* const* environment, int output, int failures, pid_t parent);

  void loop();
  int patience_ms() const;
  void read_output();
  void reap();
  void main_ended(int status);
  void advance();
  void enter(Phase phase);
  void signal_all(int signal);
  void say(const std::string& text) { log_.line("gpumod: " + text, wall_now()); }
  Result<void> save();
  int give_up(const Error& unsaved);
  std::string final_result() const;

  LaunchSpec spec_;
  LogWriter log_;
  RunState state_;
  Fd lock_;
  Fd signals_;
  Fd output_read_;
  Fd output_write_;
  pid_t stop_pid_ = 0;
  bool children_left_ = true;
  bool stop_asked_ = false;
  bool timed_out_ = false;
  bool core_dumped_ = false;
  TimePoint deadline_ = TimePoint::max();
};

int Shim::run() {
  const auto ready = prepare();
  if (!ready) {
    report(LaunchReport::Kind::failed, ready.error().message);
    return 1;
  }
  std::string holder;
  if (!take_lock(holder)) {
    report(LaunchReport::Kind::busy, holder);
    return 1;
  }
  state_.phase = Phase::starting;
  if (const auto kept = save(); !kept) return give_up(kept.error());

  StartFailure failure;
  const auto started = start_program(spec_.argv, spec_.environment, failure);
  if (!started) {
    say(started.error().message);
    state_.phase = Phase::ended;
    state_.main_ended = true;
    state_.exit_code = failure.exit_code;
    state_.result = "exit-code";
    (void)save();
    report(failure.exit_code ? LaunchReport::Kind::program_failed : LaunchReport::Kind::failed,
           started.error().message);
    return 1;
  }
  state_.main = ProcessKey{*started, 0};
  // A zombie keeps its entry until we reap it, so this cannot miss even a program that ended at once.
  if (const auto info = process_info(*started)) state_.main.start_ticks = info->start_ticks;
  state_.phase = Phase::running;
  if (const auto kept = save(); !kept) return give_up(kept.error());
  report(LaunchReport::Kind::started);

  loop();

  read_output();
  log_.finish(wall_now());
  state_.result = final_result();
  state_.phase = Phase::ended;
  (void)save();
  return 0;
}

/// Nobody would find, or could stop, what runs unrecorded: better nothing runs.
int Shim::give_up(const Error& unsaved) {
  if (state_.main.pid != 0) {
    while (children_left_) {
      signal_all(SIGKILL);
      if (::waitpid(-1, nullptr, 0) < 0 && errno == ECHILD) children_left_ = false;
    }
    ::unlink(state_path(spec_.directory).c_str());
  }
  report(LaunchReport::Kind::failed, unsaved.message, unsaved.hint);
  return 1;
}

Result<void> Shim::prepare() {
  if (::prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) return fail(system_error("become a subreaper", errno));
  ::prctl(PR_SET_NAME, "gpumod-shim");
  ::umask(0077);
  // Everything is blocked and only what we ask for is read: a hangup or an interrupt must not end the shim.
  sigset_t all;
  ::sigfillset(&all);
  ::sigprocmask(SIG_SETMASK, &all, nullptr);
  // An ignored SIGCHLD, inherited from a careless starter, would reap our children before we could ask.
  ::signal(SIGCHLD, SIG_DFL);
  sigset_t wanted;
  ::sigemptyset(&wanted);
  ::sigaddset(&wanted, SIGTERM);
  ::sigaddset(&wanted, SIGCHLD);
  signals_.reset(::signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_) return fail(system_error("create a signalfd", errno));
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail(system_error("create the output pipe", errno));
  output_read_.reset(ends[0]);
  output_write_.reset(ends[1]);
  ::fcntl(output_read_.get(), F_SETFL, O_NONBLOCK);

  state_.unit = spec_.unit;
  state_.tag = spec_.tag;
  state_.invocation = spec_.invocation;
  state_.stop_timeout = spec_.stop_timeout;
  state_.boot = TRY(boot_id());
  state_.shim = ProcessKey{::getpid(), start_ticks_of(::getpid())};
  if (state_.shim.start_ticks == 0) return fail(ErrorCode::environment, "cannot read /proc/self/stat");
  lock_.reset(::open(lock_path(spec_.directory).c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock_) return fail(system_error(fmt::format("open {}", lock_path(spec_.directory).string()), errno));
  return {};
}

bool Shim::take_lock(std::string& who) {
  if (::flock(lock_.get(), LOCK_EX | LOCK_NB) == 0) return true;
  // The last run's shim may have written its last word and not be gone yet: that one is worth waiting for.
  if (const auto before = read_state(spec_.directory); before && before->phase == Phase::ended) {
    if (const Fd pidfd = open_process(before->shim)) {
      pollfd ended{pidfd.get(), POLLIN, 0};
      ::poll(&ended, 1, 10'000);
    }
    if (::flock(lock_.get(), LOCK_EX | LOCK_NB) == 0) return true;
  }
  who = fmt::format("{} is already being run by another gpumod", spec_.unit);
  return false;
}

void Shim::report(LaunchReport::Kind kind, std::string message, std::string hint) {
  const std::string text = to_text(LaunchReport{kind, std::move(message), std::move(hint)});
  // Nobody may be left to read it; SIGPIPE is blocked like every signal.
  [[maybe_unused]] const ssize_t ignored = ::write(STDOUT_FILENO, text.data(), text.size());
  point_at_null(STDOUT_FILENO);
}

Result<pid_t> Shim::start_program(const std::vector<std::string>& argv, std::vector<std::string> environment,
                                  StartFailure& failure) {
  std::vector<std::string> arguments = argv;
  const auto argument_pointers = pointers_to(arguments);
  const auto environment_pointers = pointers_to(environment);
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return fail(system_error("create a pipe", errno));
  const Fd read_end(ends[0]);
  Fd write_end(ends[1]);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) return fail(system_error("start a process", errno));
  if (child == 0)
    become_program(argument_pointers.data(), environment_pointers.data(), output_write_.get(), write_end.get(), parent);
  write_end.reset();
  ssize_t size = 0;
  do {
    size = ::read(read_end.get(), &failure, sizeof failure);
  } while (size < 0 && errno == EINTR);
  if (size != static_cast<ssize_t>(sizeof failure))
    return child;  // closed by exec, or by an early death that reap() sees
  ::waitpid(child, nullptr, 0);
  const std::string what = failure.exit_code == exit_chdir
                               ? fmt::format("enter the directory {}", spec_.working_directory.string())
                               : fmt::format("execute {}", argv[0]);
  return fail(system_error("cannot " + what, failure.error_number));
}

void Shim::become_program(char* const* argv, char* const* environment, int output, int failures, pid_t parent) {
  const auto give_up = [failures](int exit_code) {
    const StartFailure failure{exit_code, errno};
    [[maybe_unused]] const ssize_t ignored = ::write(failures, &failure, sizeof failure);
    ::_exit(exit_code);
  };
  ::setsid();
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(exit_exec);  // the shim died before the line above: no signal will come
  point_at_null(STDIN_FILENO);
  ::dup2(output, STDOUT_FILENO);
  ::dup2(output, STDERR_FILENO);
  ::umask(0022);
  for (int signal = 1; signal < NSIG; ++signal)
    ::signal(signal, SIG_DFL);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  if (::chdir(spec_.working_directory.c_str()) != 0) give_up(exit_chdir);
  ::execve(argv[0], argv, environment);
  give_up(exit_exec);
  ::_exit(exit_exec);
}

void Shim::loop() {
  reap();
  while (children_left_) {
    pollfd waits[] = {{signals_.get(), POLLIN, 0}, {output_read_.get(), POLLIN, 0}};
    ::poll(waits, 2, patience_ms());
    signalfd_siginfo signal{};
    while (::read(signals_.get(), &signal, sizeof signal) == static_cast<ssize_t>(sizeof signal))
      if (signal.ssi_signo == SIGTERM) stop_asked_ = true;
    read_output();
    reap();
    advance();
  }
}

int Shim::patience_ms() const {
  if (deadline_ == TimePoint::max()) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline_ - now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, INT_MAX));
}

void Shim::read_output() {
  char buffer[64 * 1024];
  // Bounded, so that a service that writes without pause cannot keep us from its end or from a stop.
  for (int round = 0; round < 16; ++round) {
    const ssize_t size = ::read(output_read_.get(), buffer, sizeof buffer);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) return;
    log_.feed(std::string_view(buffer, static_cast<std::size_t>(size)), wall_now());
  }
}

void Shim::reap() {
  for (;;) {
    int status = 0;
    const pid_t pid = ::waitpid(-1, &status, WNOHANG);
    if (pid == 0) return;
    if (pid < 0) {
      // Every descendant hangs below a child of ours, for orphans are given to us: no child means nobody is left.
      children_left_ = false;
      return;
    }
    if (pid == stop_pid_) stop_pid_ = 0;
    if (pid == state_.main.pid && !state_.main_ended) main_ended(status);
  }
}

void Shim::main_ended(int status) {
  state_.main_ended = true;
  state_.killed_by_signal = WIFSIGNALED(status);
  state_.exit_code = WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status);
  core_dumped_ = WIFSIGNALED(status) && WCOREDUMP(status);
  if (state_.phase == Phase::running) (void)save();
}

void Shim::advance() {
  if (!children_left_) return;
  const bool late = now() >= deadline_;
  switch (state_.phase) {
    case Phase::starting:
    case Phase::ended: return;
    case Phase::running:
      if (state_.main_ended)
        enter(Phase::stop_sigterm);
      else if (stop_asked_)
        enter(spec_.stop_argv.empty() ? Phase::stop_sigterm : Phase::stop_command);
      return;
    case Phase::stop_command:
      if (late) timed_out_ = true;
      if (late || stop_pid_ == 0) enter(Phase::stop_sigterm);
      return;
    case Phase::stop_sigterm:
      if (late) {
        timed_out_ = true;
        say(fmt::format("{} processes did not end within {} of SIGTERM: killing them",
                        live_descendants(::getpid()).size(), format_seconds(spec_.stop_timeout)));
        enter(Phase::stop_sigkill);
      }
      return;
    case Phase::stop_sigkill:
      signal_all(SIGKILL);
      // Every death tells us to look again, but a listing of children may miss one whose sibling ends meanwhile
      // (proc_pid_task(5)), and then no death would follow.
      deadline_ = now() + 1s;
      return;
  }
}

void Shim::enter(Phase phase) {
  state_.phase = phase;
  (void)save();
  deadline_ = now() + spec_.stop_timeout;
  if (phase == Phase::stop_command) {
    auto environment = spec_.environment;
    environment.push_back(fmt::format("MAINPID={}", state_.main.pid));
    StartFailure failure;
    const auto started = start_program(spec_.stop_argv, std::move(environment), failure);
    if (started) {
      stop_pid_ = *started;
      return;
    }
    say(started.error().message);
    enter(Phase::stop_sigterm);
  } else if (phase == Phase::stop_sigterm) {
    signal_all(SIGTERM);
    signal_all(SIGCONT);  // a stopped process would never see the SIGTERM
  } else if (phase == Phase::stop_sigkill) {
    signal_all(SIGKILL);
    deadline_ = now() + 1s;
  }
}

void Shim::signal_all(int signal) {
  for (const pid_t pid : live_descendants(::getpid()))
    signal_descendant(::getpid(), pid, signal);
}

/// Once it runs, a state that cannot be written must not end the service: the reader then sees an older phase, and the
/// processes themselves.
Result<void> Shim::save() {
  return write_state(spec_.directory, state_);
}

std::string Shim::final_result() const {
  if (state_.killed_by_signal) {
    const auto polite = {SIGTERM, SIGINT, SIGHUP, SIGPIPE};
    if (std::find(polite.begin(), polite.end(), state_.exit_code) == polite.end() &&
        !(timed_out_ && state_.exit_code == SIGKILL))
      return core_dumped_ ? "core-dump" : "signal";
  } else if (state_.exit_code != 0) {
    return "exit-code";
  }
  return timed_out_ ? "timeout" : "success";
}

}  // namespace

int shim_main(int argc, [[maybe_unused]] char** argv) {
  struct stat input {};
  if (argc < 3 || ::fstat(STDIN_FILENO, &input) != 0 || !S_ISREG(input.st_mode)) {
    std::fputs("gpumod shim is started by gpumod itself; to start a service: gpumod service start NAME\n", stderr);
    return static_cast<int>(ErrorCode::usage);
  }
  // Whatever our starter had open (a lock, a socket, a pipe of the shell it runs in) must not live as long as we do.
  ::syscall(SYS_close_range, 3u, ~0u, 0u);
  point_at_null(STDERR_FILENO);
  // The starter made this process a session's leader; its child is not one, so no terminal ever becomes ours.
  const pid_t daemon = ::fork();
  if (daemon != 0) ::_exit(daemon < 0 ? 1 : 0);
  auto text = read_whole(STDIN_FILENO);
  point_at_null(STDIN_FILENO);
  auto spec = text ? launch_spec_from(*text) : Result<LaunchSpec>(fail(text.error()));
  if (!spec) {
    const auto message = to_text(LaunchReport{LaunchReport::Kind::failed, spec.error().message});
    return ::write(STDOUT_FILENO, message.data(), message.size()) > 0 ? 1 : 2;
  }
  if (::chdir("/") != 0) return 1;
  // Nothing is left to unwind, and who waits for the lock, or for this process, need not wait for exit handlers.
  ::_exit(Shim(std::move(*spec)).run());
}

}  // namespace gpumod
