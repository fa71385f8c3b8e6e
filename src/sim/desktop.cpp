// Somebody else's process on the GPU: a browser whose memory goes up and down, or a game that takes the room a switch
// has just made. It is nobody's service: gpumod may count it and must never touch it.
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <ctime>

#include <fmt/format.h>
#include <sys/prctl.h>

#include "sim/flags.h"
#include "sim/gpu.h"
#include "sim/options.h"
#include "sim/programs.h"

namespace gpumod::sim {

namespace {

constexpr const char* usage =
    "usage: gpumod-sim desktop --as NAME [--gpu DEVICE] [--list graphics|compute|mps|both] --holds AMOUNT\n"
    "         [--noise AMOUNT] [--period D] [--grab AMOUNT [--when-free AMOUNT] [--after D] [--for D]]\n"
    "         [--until-label LABEL]\n";

/// Blocked signals, waited for with a deadline: how this program sleeps.
class Ending {
 public:
  Ending() {
    ::sigemptyset(&signals_);
    for (const int signal : {SIGTERM, SIGINT, SIGHUP})
      ::sigaddset(&signals_, signal);
    ::sigprocmask(SIG_BLOCK, &signals_, nullptr);
  }
  /// True when we are told to end before that time has passed.
  bool within(Duration clock_time) const {
    const auto seconds = std::chrono::floor<std::chrono::seconds>(clock_time);
    const timespec wait{static_cast<time_t>(seconds.count()), static_cast<long>((clock_time - seconds).count())};
    for (;;) {
      if (::sigtimedwait(&signals_, nullptr, &wait) >= 0) return true;
      if (errno != EINTR) return false;
    }
  }

 private:
  sigset_t signals_{};
};

struct Habits {
  Bytes noise;
  Duration period{};
  Bytes grab;
  Bytes when_free;
  Duration after{};
  Duration keep{};
  std::string until_label;
};

constexpr const char* noise_label = "noise";

/// Between nothing and `most`, in a pattern that repeats itself: a test that fails fails again.
class Noise {
 public:
  explicit Noise(Bytes most) : most_(most) {}
  Bytes next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return Bytes(static_cast<std::int64_t>(static_cast<double>(most_.count()) * static_cast<double>(state_ >> 40) /
                                           static_cast<double>(1u << 24)));
  }

 private:
  Bytes most_;
  std::uint64_t state_ = 1;
};

/// It ends just when somebody else comes to a certain point.
Result<void> wait_for_label(Gpu& gpu, const Habits& habits, const Ending& ending) {
  while (!gpu.wait_for_label(habits.until_label, 200ms)) {
    if (ending.within(Duration{})) return {};
    TRY(gpu.memory());
  }
  return {};
}

Result<void> live(Gpu gpu, const Habits& habits, const Ending& ending) {
  Noise noise(habits.noise + habits.noise);
  if (habits.grab > Bytes()) {
    if (ending.within(scaled(habits.after))) return {};
    // In slices, so that we can be told to end while we wait.
    while (!gpu.wait_for_free(habits.when_free, 200ms)) {
      if (ending.within(Duration{})) return {};
      TRY(gpu.memory());  // tells apart: not enough yet, and no broker any more
    }
    TRY(gpu.allocate("grabbed", habits.grab));
    if (!habits.until_label.empty()) return wait_for_label(gpu, habits, ending);
    if (ending.within(habits.keep > Duration{} ? scaled(habits.keep) : Duration(std::chrono::hours(24 * 365))))
      return {};
    TRY(gpu.release("grabbed"));
  }
  if (!habits.until_label.empty()) return wait_for_label(gpu, habits, ending);
  for (;;) {
    if (ending.within(scaled(habits.period))) return {};
    if (habits.noise == Bytes()) {
      TRY(gpu.memory());
      continue;
    }
    TRY(gpu.release(noise_label));
    // A full GPU is no reason to end: browsers fall back to ordinary memory.
    if (const auto taken = gpu.allocate(noise_label, noise.next()); !taken && taken.error().code != ErrorCode::failed)
      return fail(taken.error());
  }
}

Result<void> run_desktop(const Arguments& arguments) {
  const auto flags = TRY(Flags::parse(
      arguments, {"as", "gpu", "list", "holds", "noise", "period", "grab", "when-free", "after", "for", "until-label"},
      {}));
  const std::string name = flags.text("as", "firefox");
  Habits habits;
  const int device = TRY(flags.number("gpu", 0));
  const Bytes holds = TRY(flags.amount("holds", {}));
  habits.noise = TRY(flags.amount("noise", {}));
  habits.period = TRY(flags.duration("period", 250ms));
  habits.grab = TRY(flags.amount("grab", {}));
  habits.when_free = TRY(flags.amount("when-free", habits.grab));
  habits.after = TRY(flags.duration("after", {}));
  habits.keep = TRY(flags.duration("for", {}));
  habits.until_label = flags.text("until-label", "");
  if (habits.period <= Duration{}) return fail(ErrorCode::usage, "--period: it must be longer than nothing");

  const Ending ending;
  ::prctl(PR_SET_NAME, name.c_str());
  auto gpu = TRY(Gpu::open(device));
  TRY(gpu.show_as(flags.text("list", "graphics")));
  // What goes up and down is taken in the middle: twice the noise at most, at first as much as makes up what it holds.
  const Bytes steady = std::max(holds - habits.noise, Bytes());
  TRY(gpu.allocate("window", steady));
  TRY(gpu.allocate(noise_label, holds - steady));
  std::puts("ready");
  std::fflush(stdout);
  return live(std::move(gpu), habits, ending);
}

}  // namespace

int desktop_main(const Arguments& arguments) {
  const auto done = run_desktop(arguments);
  if (done) return 0;
  std::fprintf(stderr, "gpumod-sim desktop: %s\n", done.error().message.c_str());
  if (done.error().code == ErrorCode::usage) std::fputs(usage, stderr);
  return static_cast<int>(done.error().code);
}

}  // namespace gpumod::sim
