// base/ — what every room stands on: results and errors, units, file descriptors, time, the event loop, text.
// It knows the language and the operating system's headers; it must never know what a GPU, a service or a mode is.
//
// Errors are values. A function that can fail returns Result<T>; the Error says what happened, at which stage, and what
// the reader can do next. Nothing here throws on purpose, and nothing throws across a C callback.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include <boost/json/value.hpp>
#include <tl/expected.hpp>

namespace gpumod {

/// The kinds of failure a caller can tell apart. The numbers are the process's exit codes: documented and stable.
enum class ErrorCode {
  failed = 1,         ///< it was tried and did not work
  usage = 2,          ///< the command line or request is malformed
  refused = 3,        ///< nothing was touched: the plan cannot work
  not_found = 4,      ///< no such mode, service, switch …
  busy = 5,           ///< another mutation is under way
  configuration = 6,  ///< people's files are invalid
  environment = 7,    ///< the machine lacks something: no systemd, no NVML …
  cancelled = 130,    ///< the user stopped it
};

std::string_view to_string(ErrorCode code);  ///< "failed", "usage", …: the `code` of a JSON error

struct Error {
  ErrorCode code = ErrorCode::failed;
  std::string message;              ///< one sentence: what, and where
  std::string hint = {};            ///< what to do about it; may be empty
  boost::json::value details = {};  ///< machine-readable extras; null if none
};

template <typename T>
using Result = tl::expected<T, Error>;

/// `return fail(ErrorCode::refused, "…", "…");`
inline tl::unexpected<Error> fail(ErrorCode code, std::string message, std::string hint = {}) {
  return tl::unexpected<Error>(Error{code, std::move(message), std::move(hint), {}});
}
inline tl::unexpected<Error> fail(Error error) {
  return tl::unexpected<Error>(std::move(error));
}

/// An errno turned into words: "open /x: Permission denied".
Error system_error(std::string_view what, int error_number, ErrorCode code = ErrorCode::failed);

namespace detail {
template <typename T>
T take(tl::expected<T, Error>&& result) {
  return std::move(*result);
}
inline void take(tl::expected<void, Error>&&) {}
}  // namespace detail

/// `auto value = TRY(may_fail());` gives the value or returns the error from the enclosing function.
/// Not inside a coroutine (GCC 12 miscompiles statement expressions there): test the result by name.
#define TRY(expression)                                                      \
  __extension__({                                                            \
    auto try_result = (expression);                                          \
    if (!try_result) return ::tl::unexpected(std::move(try_result).error()); \
    ::gpumod::detail::take(std::move(try_result));                           \
  })

}  // namespace gpumod
