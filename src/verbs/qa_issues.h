// What a quality run has found wrong, in the words of a report: symptom, cause, impact, remedy. Pure.
#pragma once

#include <boost/json.hpp>

namespace gpumod {

/// [{"kind","title","service","transitions":["code → rag"],"symptom","cause","impact","remedy","log":[…]}], the worst
/// first; one entry for what was seen in several transitions alike. `kind`: failed (a switch did not get there), probe,
/// orphan, and what was dealt with on the way: attempts, survivor, wait.
boost::json::array issues_of(const boost::json::array& transitions);

/// Sets the "issues" of a run whose "transitions" are there.
void finish_run(boost::json::object& run);

/// A transition in which nothing failed: the switch got there, every probe passed, nothing was left behind.
bool passed(const boost::json::value& transition);

/// A step that failed in a switch that got there all the same.
bool was_made_good(const boost::json::value& transition, const boost::json::value& step);

/// Long enough, and for memory: shorter waits, and those for other steps, are how a switch is.
bool is_worth_telling(const boost::json::value& wait);

/// "code → rag".
std::string name_of_transition(const boost::json::value& transition);

}  // namespace gpumod
