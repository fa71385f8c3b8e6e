#include "host/local_watch.h"

#include <cerrno>
#include <set>

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

namespace gpumod::local {

namespace {

constexpr const char* limits_hint =
    "Raise fs.inotify.max_user_instances and fs.inotify.max_user_watches, or end what uses them up.";

Result<Fd> owned(int fd, const char* what) {
  if (fd >= 0) return Fd(fd);
  auto error = system_error(what, errno, ErrorCode::environment);
  error.hint = limits_hint;
  return fail(std::move(error));
}

}  // namespace

struct Watcher::State {
  explicit State(Loop& its_loop) : loop(its_loop) {}

  struct Directory {
    int watch = -1;
    // Shared, so that a callback may take back its own registration while it runs.
    std::shared_ptr<std::function<void(std::string_view)>> callback;
  };
  struct Process {
    Fd pidfd;
    std::shared_ptr<std::function<void()>> callback;
  };

  Loop& loop;
  Fd inotify;
  Fd wake;
  Fd epoll;
  std::map<std::uint64_t, Directory> directories;
  std::map<std::uint64_t, Process> processes;
  std::uint64_t last_id = 0;
  bool pumping = false;

  bool idle() const { return directories.empty() && processes.empty(); }
  Result<void> add(int fd, std::uint64_t id);
  void forget_directory(std::uint64_t id);
  void forget_process(std::uint64_t id);
  void read_directories();
  void call_process(std::uint64_t id);
  void wake_up();
};

namespace {
// Ids of the two descriptors that are no process.
constexpr std::uint64_t inotify_id = 0;
constexpr std::uint64_t wake_id = 1;
constexpr std::uint64_t first_free_id = 2;
}  // namespace

Result<void> Watcher::State::add(int fd, std::uint64_t id) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = id;
  if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd, &event) != 0) return fail(system_error("watch a descriptor", errno));
  return {};
}

void Watcher::State::wake_up() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t ignored = ::write(wake.get(), &one, sizeof one);
}

void Watcher::State::forget_directory(std::uint64_t id) {
  const auto entry = directories.find(id);
  if (entry == directories.end()) return;
  const int watch = entry->second.watch;
  directories.erase(entry);
  bool shared = false;
  for (const auto& [other, directory] : directories)
    shared = shared || directory.watch == watch;
  if (!shared) ::inotify_rm_watch(inotify.get(), watch);
  if (idle()) wake_up();
}

void Watcher::State::forget_process(std::uint64_t id) {
  const auto entry = processes.find(id);
  if (entry == processes.end()) return;
  ::epoll_ctl(epoll.get(), EPOLL_CTL_DEL, entry->second.pidfd.get(), nullptr);
  processes.erase(entry);
  if (idle()) wake_up();
}

void Watcher::State::read_directories() {
  // One call back for each file, however often it was written since.
  std::set<std::pair<int, std::string>> changed;
  bool lost = false;
  alignas(inotify_event) char buffer[16 * 1024];
  for (;;) {
    const ssize_t size = ::read(inotify.get(), buffer, sizeof buffer);
    if (size <= 0) break;
    for (const char* at = buffer; at < buffer + size;) {
      const auto* event = reinterpret_cast<const inotify_event*>(at);
      if (event->mask & IN_Q_OVERFLOW) lost = true;
      if (event->len > 0) changed.emplace(event->wd, event->name);
      at += sizeof(inotify_event) + event->len;
    }
  }
  std::vector<std::uint64_t> ids;
  for (const auto& [id, directory] : directories)
    ids.push_back(id);
  for (const auto id : ids) {
    const auto call = [&](std::string_view file) {
      const auto entry = directories.find(id);  // an earlier callback may have taken it away
      if (entry == directories.end()) return;
      const auto callback = entry->second.callback;
      (*callback)(file);
    };
    if (lost) {
      call("");
      continue;
    }
    const auto entry = directories.find(id);
    if (entry == directories.end()) continue;
    const int watch = entry->second.watch;
    for (const auto& [of, file] : changed)
      if (of == watch) call(file);
  }
}

void Watcher::State::call_process(std::uint64_t id) {
  const auto entry = processes.find(id);
  if (entry == processes.end()) return;
  const auto callback = entry->second.callback;
  forget_process(id);
  (*callback)();
}

Result<std::unique_ptr<Watcher>> Watcher::create(Loop& loop) {
  auto state = std::make_shared<State>(loop);
  state->last_id = first_free_id;
  state->inotify = TRY(owned(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK), "create an inotify descriptor"));
  state->wake = TRY(owned(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "create an eventfd"));
  state->epoll = TRY(owned(::epoll_create1(EPOLL_CLOEXEC), "create an epoll descriptor"));
  TRY(state->add(state->inotify.get(), inotify_id));
  TRY(state->add(state->wake.get(), wake_id));
  return std::unique_ptr<Watcher>(new Watcher(std::move(state)));
}

namespace {

template <typename State>
Task<void> pump(std::shared_ptr<State> state) {
  while (!state->idle()) {
    const auto ready = co_await wait_ready(state->epoll.get(), Readiness::readable);
    if (!ready) break;
    epoll_event events[32];
    const int count = ::epoll_wait(state->epoll.get(), events, 32, 0);
    for (int i = 0; i < count; ++i) {
      const std::uint64_t id = events[i].data.u64;
      if (id == inotify_id) {
        state->read_directories();
      } else if (id == wake_id) {
        std::uint64_t number = 0;
        [[maybe_unused]] const ssize_t ignored = ::read(state->wake.get(), &number, sizeof number);
      } else {
        state->call_process(id);
      }
    }
  }
  state->pumping = false;
}

template <typename State>
void keep_pumping(const std::shared_ptr<State>& state) {
  if (!std::exchange(state->pumping, true)) state->loop.spawn(pump(state));
}

}  // namespace

Watcher::Watcher(std::shared_ptr<State> state) : state_(std::move(state)) {}

Watcher::~Watcher() {
  state_->directories.clear();
  state_->processes.clear();
  state_->wake_up();
}

Result<Registration> Watcher::directory(const std::filesystem::path& path,
                                        std::function<void(std::string_view)> callback) {
  constexpr std::uint32_t what = IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_DELETE | IN_ONLYDIR;
  const int watch = ::inotify_add_watch(state_->inotify.get(), path.c_str(), what);
  if (watch < 0) {
    auto error = system_error(fmt::format("watch {}", path.string()), errno, ErrorCode::environment);
    if (errno == ENOSPC) error.hint = limits_hint;
    return fail(std::move(error));
  }
  const auto id = ++state_->last_id;
  state_->directories.emplace(
      id, State::Directory{watch, std::make_shared<std::function<void(std::string_view)>>(std::move(callback))});
  keep_pumping(state_);
  return Registration([weak = std::weak_ptr(state_), id] {
    if (const auto state = weak.lock()) state->forget_directory(id);
  });
}

Registration Watcher::process(Fd pidfd, std::function<void()> callback) {
  const auto id = ++state_->last_id;
  if (!state_->add(pidfd.get(), id)) return {};
  state_->processes.emplace(
      id, State::Process{std::move(pidfd), std::make_shared<std::function<void()>>(std::move(callback))});
  keep_pumping(state_);
  return Registration([weak = std::weak_ptr(state_), id] {
    if (const auto state = weak.lock()) state->forget_process(id);
  });
}

}  // namespace gpumod::local
