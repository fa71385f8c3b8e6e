// What is looked at after each switch of a quality run: whether every service answers as it should, what was left behind,
// who else is on the GPUs. It changes nothing.
#pragma once

#include <boost/json.hpp>

#include "model/recording.h"
#include "verbs/context.h"

namespace gpumod {

/// A switch's outcome as a transition of a report: {"switch","from","to","result","seconds","vram","steps","problem"}.
/// `answer`: what the verb that switched answered, or its error.
boost::json::object transition_of(const Result<boost::json::value>& answer, const std::string& from,
                                  const std::string& to, Duration took);

/// What its recording tells of a switch: {"waits":[{"subject","for","cause","seconds","given_back":[…]}],"curve":[{"at","gpu","used"}]}, at
/// most 120 points a GPU. Pure.
boost::json::object recorded_of(const Recording& recording);

/// Adds to a transition: what was recorded of it, "services":[{"service","kind","passed","figures":{…},"answer","reasoning","problems","note"}] of
/// what the stored goal wants running, "orphans":[{"name","unit","why","bytes","pids"}], "foreign":[{"gpu","name","user",
/// "bytes","pids"}], vram's "ours", and "logs":[{"service","unit","lines"}] of what failed.
Task<void> look_after(Context& context, boost::json::object& transition);

/// {"gpumod","driver","gpus":[{"index","name","total"}],"unit_manager","services":[{"id","engine","port","model","key"}]}
Task<boost::json::object> describe_environment(Context& context);

}  // namespace gpumod
