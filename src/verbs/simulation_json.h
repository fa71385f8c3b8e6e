// A switch that was thought through, as JSON: the answer of `simulate`.
#pragma once

#include <boost/json/object.hpp>

#include "verbs/simulation.h"

namespace gpumod {

/// {"simulation": {…}}; see the verb's declaration.
boost::json::object simulation_json(const Thought& thought, const Foresight& foresight,
                                    const std::vector<Offer>& offers);

}  // namespace gpumod
