#include "base/async.h"

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <list>
#include <thread>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/fd.h"

namespace gpumod {

namespace asio = boost::asio;
using asio::use_awaitable;
using boost::system::error_code;

namespace detail {
void die(const char* message) {
  std::fprintf(stderr, "gpumod: internal error: %s\n", message);
  std::abort();
}
}  // namespace detail

namespace {

void end_process_on(const std::exception_ptr& thrown) {
  if (!thrown) return;
  try {
    std::rethrow_exception(thrown);
  } catch (const std::exception& problem) {
    detail::die(problem.what());
  } catch (...) {
    detail::die("an unknown exception left a task");
  }
}

asio::steady_timer::time_point as_expiry(TimePoint deadline) {
  return std::chrono::time_point_cast<asio::steady_timer::duration>(deadline);
}

}  // namespace

struct Loop::State {
  asio::io_context context{1};
};

Loop::Loop() : state_(std::make_unique<State>()) {}
Loop::~Loop() = default;

void Loop::run() {
  state_->context.restart();
  state_->context.run();
}

void Loop::stop() {
  state_->context.stop();
}

void Loop::spawn(Task<void> task) {
  asio::co_spawn(state_->context, std::move(task), [](std::exception_ptr thrown) { end_process_on(thrown); });
}

void Loop::post(std::function<void()> work) {
  asio::post(state_->context, std::move(work));
}

asio::io_context& Loop::context() {
  return state_->context;
}

Task<void> wait_until(TimePoint deadline) {
  asio::steady_timer timer(co_await asio::this_coro::executor, as_expiry(deadline));
  error_code ignored;
  co_await timer.async_wait(asio::redirect_error(use_awaitable, ignored));
}

Task<void> wait_for(Duration duration) {
  co_await wait_until(now() + duration);
}

struct Signal::State {
  explicit State(Loop& loop) : context(loop.context()) {}
  asio::io_context& context;
  bool set = false;
  std::list<asio::steady_timer*> waiters;
  std::list<std::function<void()>> callbacks;
};

Signal::Signal(Loop& loop) : state_(std::make_shared<State>(loop)) {}
Signal::~Signal() = default;

void Signal::set() {
  state_->set = true;
  for (auto* waiter : state_->waiters)
    waiter->cancel();
  for (const auto& callback : state_->callbacks)
    callback();
}

void Signal::reset() {
  state_->set = false;
}
bool Signal::is_set() const {
  return state_->set;
}

Task<bool> Signal::wait(TimePoint deadline) {
  const auto state = state_;  // outlives the Signal if that goes while somebody waits
  if (state->set) co_return true;
  asio::steady_timer timer(state->context, as_expiry(deadline));
  const auto place = state->waiters.insert(state->waiters.end(), &timer);
  const Registration forget([&] { state->waiters.erase(place); });
  error_code ignored;
  co_await timer.async_wait(asio::redirect_error(use_awaitable, ignored));
  // Set and reset again before we ran still woke us: only a timer that fired means the deadline.
  co_return state->set || ignored == asio::error::operation_aborted;
}

Registration Signal::on_set(std::function<void()> callback) {
  if (state_->set) callback();
  const auto place = state_->callbacks.insert(state_->callbacks.end(), std::move(callback));
  return Registration([state = state_, place] { state->callbacks.erase(place); });
}

Task<Result<bool>> wait_ready(int fd, Readiness what, TimePoint deadline) {
  const auto executor = co_await asio::this_coro::executor;
  const int duplicate = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (duplicate < 0) co_return fail(system_error("duplicate a descriptor", errno));
  asio::posix::stream_descriptor descriptor(executor, duplicate);
  asio::steady_timer timer(executor, as_expiry(deadline));
  bool late = false;
  if (deadline != TimePoint::max()) {
    timer.async_wait([&](error_code cancelled) {
      if (cancelled) return;
      late = true;
      descriptor.cancel();
    });
  }
  const auto kind = what == Readiness::readable   ? asio::posix::stream_descriptor::wait_read
                    : what == Readiness::writable ? asio::posix::stream_descriptor::wait_write
                                                  : asio::posix::stream_descriptor::wait_error;
  const short events = what == Readiness::readable ? POLLIN : what == Readiness::writable ? POLLOUT : POLLPRI;
  error_code problem;
  bool ready = false;
  while (!ready && !late && !problem) {
    co_await descriptor.async_wait(kind, asio::redirect_error(use_awaitable, problem));
    // A second event of the descriptor that was waited on before can reach this one: asio reuses its bookkeeping.
    pollfd question{duplicate, events, 0};
    ready = ::poll(&question, 1, 0) != 0;
  }
  // The timer's handler refers to this frame: it must have run, or be cancelled and run, before we leave.
  if (deadline != TimePoint::max() && !late) {
    timer.cancel();
    co_await asio::post(executor, use_awaitable);
  }
  if (late) co_return false;
  if (problem) co_return fail(ErrorCode::failed, fmt::format("wait for a descriptor: {}", problem.message()));
  co_return true;
}

Task<void> run_all(std::vector<Task<void>> tasks) {
  const auto executor = co_await asio::this_coro::executor;
  if (tasks.empty()) co_return;
  auto left = std::make_shared<std::size_t>(tasks.size());
  auto done = std::make_shared<asio::steady_timer>(executor, asio::steady_timer::time_point::max());
  for (auto& task : tasks) {
    asio::co_spawn(executor, std::move(task), [left, done](std::exception_ptr thrown) {
      end_process_on(thrown);
      if (--*left == 0) done->cancel();
    });
  }
  if (*left > 0) {
    error_code ignored;
    co_await done->async_wait(asio::redirect_error(use_awaitable, ignored));
  }
}

namespace {

/// `start` has the function called on another thread.
Task<void> run_elsewhere(std::function<void()> work, void (*start)(std::function<void()> job)) {
  // The thread tells us through a descriptor and never touches our loop, which may be gone when a call ends at last.
  const auto done = std::make_shared<Fd>(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!*done) detail::die("no descriptor is left to wait for a helper thread");
  start([work = std::move(work), done]() mutable {
    try {
      const auto job = std::move(work);  // what it holds is released before we say that it is done
      job();
    } catch (...) {
      end_process_on(std::current_exception());
    }
    const std::uint64_t one = 1;
    if (::write(done->get(), &one, sizeof one) != static_cast<ssize_t>(sizeof one)) detail::die("write to an eventfd");
  });
  const auto finished = co_await wait_ready(done->get(), Readiness::readable);
  if (!finished) detail::die(finished.error().message.c_str());
  // Read from the descriptor written to, not from wait_ready's duplicate: so ThreadSanitizer sees the order, too.
  std::uint64_t count = 0;
  if (::read(done->get(), &count, sizeof count) != static_cast<ssize_t>(sizeof count)) detail::die("read an eventfd");
}

}  // namespace

Task<void> run_blocking(std::function<void()> work) {
  return run_elsewhere(std::move(work), [](std::function<void()> job) {
    // Never destroyed: a call that hangs for ever must not keep the process from ending.
    static auto* const pool = new asio::thread_pool(8);
    asio::post(*pool, std::move(job));
  });
}

Task<void> run_on_own_thread(std::function<void()> work) {
  return run_elsewhere(std::move(work), [](std::function<void()> job) { std::thread(std::move(job)).detach(); });
}

}  // namespace gpumod
