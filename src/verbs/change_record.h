// The record of what assistants changed: a line when a change begins, and one when it ends. Whoever carries the change
// out writes the end, so that it is there also where the client and its gpumod have gone by then.
#pragma once

#include <filesystem>

#include <boost/json/object.hpp>

#include "base/paths.h"
#include "base/result.h"
#include "base/units.h"

namespace gpumod {

std::filesystem::path change_record_of(const Paths& paths);

/// The lines: `about` (who, and what was asked for) with "time", "what": "begun" or "ended", and at the end "outcome":
/// "done" or the code of the error.
boost::json::object record_of_begin(boost::json::object about);
boost::json::object record_of_end(boost::json::object about, const Result<boost::json::value>& answer);

/// One JSON object a line, only ever added to, 0600. A file that would grow beyond `most` is put away first, as FILE.1 in
/// the place of the one before. Any number of processes may write at once: the file itself is the lock (flock).
/// Errors: as of writing a file.
Result<void> append_record(const std::filesystem::path& file, const boost::json::object& record,
                           Bytes most = Bytes::mib(4));

}  // namespace gpumod
