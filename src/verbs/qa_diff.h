// Two quality runs beside each other: what has become worse, with its figures, and what has changed meanwhile. Pure.
//
// Each figure is compared by the medians of what both runs saw of it: seconds by transition, by service what it takes to
// come up and how it answers, memory by mode. What differs by less than a tolerance is the same: a share of the earlier
// value, never less than an amount that means nothing, and, where a run saw a figure several times, three times as far as
// these lay from their median on average.
#pragma once

#include <boost/json.hpp>

namespace gpumod {

/// {"before","after": ids or null,"regressions":[…],"improvements":[…],"changes":["…"],"missing":["…"]}; a regression
/// is {"kind","subject","before","after","tolerance","unit","text"}. `kind`: transition, probe, orphan, dimensions
/// (newly failed, newly there, different), seconds, load, tokens, prompt, first_token, vram. `changes`: of the environment.
/// `missing`: what the later run did not see.
boost::json::object compare_runs(const boost::json::value& before, const boost::json::value& after);

/// How two environments differ, in sentences.
boost::json::array changes_between(const boost::json::value& before, const boost::json::value& after);

}  // namespace gpumod
