// Values that are stored or shown, as JSON. The shapes are part of what scripts and databases rely on.
#pragma once

#include <string_view>

#include <boost/json/value.hpp>

#include "base/result.h"
#include "model/snapshot.h"

namespace gpumod {

/// Null for what is not known.
boost::json::value bytes_or_null(const std::optional<Bytes>& amount);
boost::json::value text_or_null(std::string_view text);  ///< null for ""
/// To the millisecond.
double rounded_seconds(Duration took);

/// {"mode": "code", "exclusive": true, "wanted": {"chat": "running"}}
boost::json::value to_json(const Goal& goal);
/// Errors: failed when the shape is not that of a goal.
Result<Goal> goal_from_json(const boost::json::value& value);

/// {"code","message","hint","details"}: the `error` of a JSON answer.
boost::json::value to_json(const Error& error);
Error error_from_json(const boost::json::value& value);

}  // namespace gpumod
