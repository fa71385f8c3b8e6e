#include "control/progress.h"

#include <algorithm>

#include <fmt/format.h>

namespace gpumod {

namespace {

constexpr Duration longest_stall = 120s;
/// Idle interpreters and timers use some CPU, too.
constexpr double idle_share = 0.02;
/// What answering one question may cost a server written in Python, on a slow machine.
constexpr Duration cost_of_answer = 3ms;
/// Less than a sixteenth of a MiB is some file of /proc or a configuration read again, no model.
constexpr std::uint64_t idle_bytes = 64 * 1024;
constexpr std::uint64_t idle_faults = 16;
constexpr Bytes wavering = Bytes::mib(1);

}  // namespace

Progress::Progress(Duration patience, TimePoint began)
    : patience_(patience), stall_limit_(std::min(patience / 2, longest_stall)), began_(began), last_sign_(began) {}

void Progress::look(Look seen, TimePoint at) {
  const int answers = std::exchange(answers_, 0);
  if (last_) {
    Duration cpu{};
    std::uint64_t disk = 0, read = 0, faults = 0;
    bool newcomer = false;
    for (const auto& [pid, usage] : seen.processes) {
      ProcessUsage before;
      const auto known = last_->processes.find(pid);
      if (known != last_->processes.end() && known->second.start_ticks == usage.start_ticks)
        before = known->second;
      else
        newcomer = true;
      cpu += usage.cpu - before.cpu;
      disk += usage.disk_bytes - before.disk_bytes;
      read += usage.read_bytes - before.read_bytes;
      faults += usage.major_faults - before.major_faults;
    }
    const auto idle_cpu = std::chrono::duration_cast<Duration>((at - last_at_) * idle_share) + answers * cost_of_answer;
    const bool grew = seen.vram && last_->vram && *seen.vram > *last_->vram + wavering;
    if (newcomer || cpu > idle_cpu || disk > idle_bytes || read > idle_bytes || faults > idle_faults || grew) sign(at);
  }
  last_ = std::move(seen);
  last_at_ = at;
}

bool Progress::out_of_time(TimePoint at) const {
  if (at < began_ + patience_) return false;
  // Where no signs can be seen, only lines can buy time.
  return at - last_sign_ >= stall_limit_ || at >= began_ + slow_start_factor * patience_;
}

TimePoint Progress::next_verdict(TimePoint at) const {
  const auto silent_at = last_sign_ + stall_limit_;
  const auto last = began_ + slow_start_factor * patience_;
  if (blind_) return std::min(last, std::max(began_ + patience_, silent_at));
  return std::min(last, std::max(at, silent_at));
}

Duration Progress::look_interval() const {
  return std::clamp<Duration>(stall_limit_ / 10, 50ms, 2s);
}

std::string Progress::silence(TimePoint at) const {
  const bool sees_vram = last_ && last_->vram;
  return fmt::format("for {} it wrote no log line, started no process, used no CPU{} read nothing{}",
                     format_seconds(at - last_sign_), sees_vram ? "," : " and", sees_vram ? " and took no VRAM" : "");
}

}  // namespace gpumod
