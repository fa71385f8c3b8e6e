#include "host/local_processes.h"

#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host/processes.h"

namespace gpumod::local {

bool send_signal(const Fd& pidfd, int signal) {
  return ::syscall(SYS_pidfd_send_signal, pidfd.get(), signal, nullptr, 0) == 0;
}

bool has_ended(const Fd& pidfd) {
  pollfd wait{pidfd.get(), POLLIN, 0};
  return ::poll(&wait, 1, 0) == 1;
}

std::uint64_t start_ticks_of(pid_t pid) {
  const auto info = process_info(pid);
  if (!info) return 0;
  if (info->alive()) return info->start_ticks;
  // A main thread that has ended while others go on looks like a zombie too; the pidfd knows.
  const auto pidfd = open_pidfd(pid);
  return pidfd && !has_ended(*pidfd) ? info->start_ticks : 0;
}

Fd open_process(const ProcessKey& key) {
  if (key.pid <= 0 || key.start_ticks == 0) return {};
  auto pidfd = open_pidfd(key.pid);
  if (!pidfd || start_ticks_of(key.pid) != key.start_ticks) return {};
  return std::move(*pidfd);
}

bool is_alive(const ProcessKey& key) {
  return key.pid > 0 && key.start_ticks != 0 && start_ticks_of(key.pid) == key.start_ticks;
}

std::vector<pid_t> live_descendants(pid_t root) {
  auto pids = descendants_of(root);
  std::erase_if(pids, [](pid_t pid) { return start_ticks_of(pid) == 0; });
  return pids;
}

bool signal_descendant(pid_t root, pid_t pid, int signal) {
  const auto pidfd = open_pidfd(pid);
  if (!pidfd) return false;
  for (pid_t ancestor = pid; ancestor > 1;) {
    const auto info = process_info(ancestor);
    if (!info) return false;
    ancestor = info->parent;
    if (ancestor == root) return send_signal(*pidfd, signal);
  }
  return false;
}

std::map<std::string, std::vector<pid_t>> marked_processes(const std::string& home) {
  std::map<std::string, std::vector<pid_t>> found;
  const uid_t own = ::geteuid();
  for (const pid_t pid : all_pids()) {
    struct stat owner {};
    if (pid == ::getpid() || ::stat(fmt::format("/proc/{}", pid).c_str(), &owner) != 0 || owner.st_uid != own) continue;
    if (environment_of(pid, home_variable) != home) continue;
    // A zombie's environment is empty, so what answers is alive.
    if (const auto tag = environment_of(pid, service_variable)) found[*tag].push_back(pid);
  }
  return found;
}

Fd open_marked_process(pid_t pid, const std::string& home, const std::string& tag) {
  auto pidfd = open_pidfd(pid);
  if (!pidfd || environment_of(pid, home_variable) != home || environment_of(pid, service_variable) != tag) return {};
  return std::move(*pidfd);
}

}  // namespace gpumod::local
