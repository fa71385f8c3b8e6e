// A blocking look with a deadline, on a helper thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <fmt/format.h>

#include "base/async.h"
#include "base/result.h"

namespace gpumod {

/// What `look` finds; `late` when it takes longer. It goes on alone then, and its thread is its own, so it must hold everything
/// that it needs itself.
template <typename T>
Task<Result<T>> look_within(Loop& loop, Duration limit, std::function<T()> look, Error late) {
  struct Seen {
    std::optional<T> value;
    std::string broke;
  };
  const auto seen = std::make_shared<Seen>();
  const auto on_thread = [](std::shared_ptr<Seen> into, std::function<T()> what) -> Task<bool> {
    std::function<void()> work = [into, what] {
      try {
        into->value.emplace(what());
      } catch (const std::exception& problem) {
        into->broke = problem.what();
      }
    };
    co_await run_on_own_thread(std::move(work));
    co_return true;
  };
  auto looking = on_thread(seen, std::move(look));
  const auto in_time = co_await within(loop, now() + limit, std::move(looking));
  if (!in_time) co_return fail(std::move(late));
  if (!seen->value) co_return fail(ErrorCode::failed, fmt::format("this look broke: {}", seen->broke));
  co_return std::move(*seen->value);
}

}  // namespace gpumod
