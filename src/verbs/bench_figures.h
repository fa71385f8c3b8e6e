// What runs of the same switch say together, and whether they are slower than those of another day.
#pragma once

#include <string>
#include <vector>

#include <boost/json/object.hpp>

namespace gpumod {

/// Seconds. `spread`: how far runs lie from the median, on average. All zero for no runs.
struct BenchFigures {
  double median = 0, spread = 0, least = 0, most = 0;
};
BenchFigures figures_of(std::vector<double> runs);

/// {"median","spread","least","most","all"}
boost::json::object to_json(const BenchFigures& figures, const std::vector<double>& runs);

/// Slower, or faster, by more than chance explains: by more than a tenth, a tenth of a second, and three times the
/// bigger spread.
enum class Trend { same, slower, faster };
Trend trend_of(const BenchFigures& before, const BenchFigures& after);

/// `before`, `after`: the "bench" of two answers. {"regressions":[…],"improvements":[…],"missing":[…],"notes":[…]};
/// a change is {"from","to","before","after","seconds","percent","text","steps":[{"action","subject","before","after"}]}:
/// the steps that changed. Missing is what was measured before, and not now.
boost::json::object compare_benches(const boost::json::object& before, const boost::json::object& after);

}  // namespace gpumod
