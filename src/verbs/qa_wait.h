// Who gave memory back while a step waited for it, by what was recorded of the GPUs meanwhile.
#pragma once

#include <string>
#include <vector>

#include <boost/json/value.hpp>

#include "model/recording.h"

namespace gpumod {

struct GivenBack {
  enum class By {
    ours,    ///< `name`: a service, a router, a unit
    nobody,  ///< no process held it any more: the driver had not given it back
    others,  ///< processes that are none of gpumod's
  };
  By by = By::ours;
  std::string name;
  Bytes bytes;      ///< the most that was still there and went
  Duration held{};  ///< for how long of the wait some of it was
};

/// Whoever gave back at least 64 MiB of a GPU, the most first. Nobody where the driver does not tell who holds what.
std::vector<GivenBack> given_back_during(const Recording& recording, const Recording::Wait& wait);

/// {"by","name","bytes","seconds"}
boost::json::value to_json(const GivenBack& given);

/// From JSON, in words: "The driver listed 22514 MiB for processes of llama for 7.5 s." "" for what is no such thing.
std::string given_back_words(const boost::json::value& given);

}  // namespace gpumod
