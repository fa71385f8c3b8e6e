// The event loop, seen through a narrow door. One thread runs a Loop; coroutines (Task) wait on it.
//
// Only this file's implementation includes Boost.Asio's machinery: a file that includes all of Asio costs five to eight
// seconds to compile, so the rooms get the handful of things they wait on as functions.
//
// Rules that GCC 12 forces on coroutines (both miscompile under it): never write an aggregate temporary as an argument
// inside a `co_await` expression, name it first; never `co_await` inside a condition or beside && and ||.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <boost/asio/awaitable.hpp>

#include "base/result.h"
#include "base/time.h"

namespace boost::asio {
class io_context;
}

namespace gpumod {

namespace detail {
[[noreturn]] void die(const char* message);
}

template <typename T>
using Task = boost::asio::awaitable<T>;

class Loop {
 public:
  Loop();
  ~Loop();
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  /// Runs until nothing is left to wait for, or stop().
  void run();
  void stop();
  /// Starts a coroutine. An exception that leaves it is a defect and ends the process with a message.
  void spawn(Task<void> task);
  /// Runs `work` on the loop's thread, soon; callable from any thread.
  void post(std::function<void()> work);
  /// Runs the loop until this one task is done, and gives what it returned. Other tasks go on meanwhile.
  template <typename T>
  T run_until_done(Task<T> task);

  boost::asio::io_context& context();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Waits; the caller says in a comment why nothing could be waited on instead.
Task<void> wait_for(Duration duration);
Task<void> wait_until(TimePoint deadline);

class Registration;

/// A flag that coroutines wait for. It stays set until reset(). For one loop's thread only.
class Signal {
 public:
  explicit Signal(Loop& loop);
  ~Signal();
  Signal(const Signal&) = delete;
  Signal& operator=(const Signal&) = delete;

  void set();
  void reset();
  bool is_set() const;
  /// True if it was set, false if the deadline came first.
  Task<bool> wait(TimePoint deadline = TimePoint::max());
  /// Called by set() for as long as the registration is kept, and at once when it is set already. Must not wait.
  Registration on_set(std::function<void()> callback);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

enum class Readiness { readable, writable, priority };

/// Waits until the descriptor is ready. True: ready; false: the deadline came first. The descriptor stays the caller's,
/// and must stay open while waited on.
Task<Result<bool>> wait_ready(int fd, Readiness what, TimePoint deadline = TimePoint::max());

/// What `task` gives, or nothing when the deadline comes first. The task is not cancelled then: it goes on without
/// anybody waiting for it, so what it refers to must outlive the loop.
template <typename T>
Task<std::optional<T>> within(Loop& loop, TimePoint deadline, Task<T> task);

/// Runs all tasks beside each other on the current loop and returns when the last is done.
Task<void> run_all(std::vector<Task<void>> tasks);

/// Runs blocking `work` on a helper thread while the loop goes on. `work` must not touch what the loop owns.
/// One slow call never holds another back: each gets a thread, taken from a small pool.
Task<void> run_blocking(std::function<void()> work);
/// The same on a thread that is made for it: for work that waits for run_blocking() itself, or goes on for long. Whoever
/// calls it says how many there are at once.
Task<void> run_on_own_thread(std::function<void()> work);

/// Calls a function when it goes out of scope: the registration is the object.
class Registration {
 public:
  Registration() = default;
  explicit Registration(std::function<void()> undo) : undo_(std::move(undo)) {}
  Registration(Registration&& other) noexcept : undo_(std::exchange(other.undo_, nullptr)) {}
  Registration& operator=(Registration&& other) noexcept {
    if (this != &other) {
      release();
      undo_ = std::exchange(other.undo_, nullptr);
    }
    return *this;
  }
  Registration(const Registration&) = delete;
  Registration& operator=(const Registration&) = delete;
  ~Registration() { release(); }
  void release() {
    if (auto undo = std::exchange(undo_, nullptr)) undo();
  }

 private:
  std::function<void()> undo_;
};

namespace detail {
template <typename T>
struct Awaited {
  explicit Awaited(Loop& loop) : done(loop) {}
  Signal done;
  std::optional<T> value;
};
template <typename T>
Task<void> deliver(Task<T> task, std::shared_ptr<Awaited<T>> to) {
  to->value.emplace(co_await std::move(task));
  to->done.set();
}
}  // namespace detail

template <typename T>
Task<std::optional<T>> within(Loop& loop, TimePoint deadline, Task<T> task) {
  auto awaited = std::make_shared<detail::Awaited<T>>(loop);
  loop.spawn(detail::deliver(std::move(task), awaited));
  (void)co_await awaited->done.wait(deadline);
  co_return std::move(awaited->value);
}

template <typename T>
T Loop::run_until_done(Task<T> task) {
  std::optional<T> value;
  spawn([](Loop& loop, Task<T> inner, std::optional<T>& out) -> Task<void> {
    out.emplace(co_await std::move(inner));
    loop.stop();
  }(*this, std::move(task), value));
  run();
  if (!value) detail::die("the event loop ran out of work before its task was done");
  return std::move(*value);
}

}  // namespace gpumod
