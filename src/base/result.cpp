#include "base/result.h"

#include <cstring>

#include <fmt/format.h>

namespace gpumod {

std::string_view to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::failed: return "failed";
    case ErrorCode::usage: return "usage";
    case ErrorCode::refused: return "refused";
    case ErrorCode::not_found: return "not_found";
    case ErrorCode::busy: return "busy";
    case ErrorCode::configuration: return "configuration";
    case ErrorCode::environment: return "environment";
    case ErrorCode::cancelled: return "cancelled";
  }
  return "failed";
}

Error system_error(std::string_view what, int error_number, ErrorCode code) {
  return Error{code, fmt::format("{}: {}", what, std::strerror(error_number)), {}, {}};
}

}  // namespace gpumod
