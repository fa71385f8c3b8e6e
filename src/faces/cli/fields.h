// Reading answers for showing them. A face is tolerant: a key that is missing or of another kind is simply not shown.
// Every text that leaves here is cleaned, so that nothing a model, a log or a file says can drive the terminal.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/json.hpp>

#include "faces/cli/style.h"

namespace gpumod::cli {

/// The member, or a null value.
const boost::json::value& member(const boost::json::value& value, std::string_view key);
const boost::json::value& member(const boost::json::object& object, std::string_view key);
/// Its elements; none when it is no array.
const boost::json::array& elements(const boost::json::value& value);

/// Printable; "" when it is no text.
std::string text(const boost::json::value& value);
/// As it is, for files: never for a terminal.
std::string raw_text(const boost::json::value& value);
std::optional<double> number(const boost::json::value& value);
bool truth(const boost::json::value& value);
std::vector<std::string> texts(const boost::json::value& list);

/// Text, number or truth as people read it; "" for null and for empty lists; lists joined by ", ".
std::string plain(const boost::json::value& value);
/// Bytes as "20512 MiB"; "" for null.
std::string mebibytes(const boost::json::value& bytes);
/// "GPU 0", from an index as JSON has it, also as a key; "GPU 1 instance 2" for one of MIG.
std::string gpu_words(std::string_view index);
/// Seconds as "1.2 s"; "" for null.
std::string seconds_text(const boost::json::value& seconds);

/// RFC 3339 in UTC as people's own time; as it is when it is something else. On a terminal, where people know in which
/// zone they are, "2026-02-09 21:03:11", and of today "21:03:11". Text that goes elsewhere (a pipe, a file, an assistant)
/// says the zone as well: "2026-02-09 21:03:11 +01:00".
std::string local_time(const boost::json::value& time, const Screen& screen);

}  // namespace gpumod::cli
