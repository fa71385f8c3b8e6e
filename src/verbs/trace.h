// A recording in the trace-event format ("Trace Event Format" of Chromium's tracing, the JSON that Perfetto and
// chrome://tracing open): complete events ("X", microseconds) for steps and their phases, counters ("C") for memory in
// MiB, metadata ("M") for names. https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
#pragma once

#include <boost/json/object.hpp>

#include "model/recording.h"

namespace gpumod {

boost::json::object trace_of(const Recording& recording);

}  // namespace gpumod
