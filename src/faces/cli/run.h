// Doing what was asked for. Reads and edits run in this process; what changes the machine runs in a worker that
// outlives us, and is followed here.
#pragma once

#include <string>

#include <boost/json/value.hpp>

#include "faces/cli/cli.h"
#include "faces/cli/style.h"

namespace gpumod::cli {

/// The process's two outputs.
struct Output {
  Screen out;
  Screen err;
  bool json = false;
};

int exit_code(const Error& error);
/// {"error": …}; a switch's report stands beside it as "switch", so that scripts find .switch.result in every case.
boost::json::object error_document(const Error& error);

void print(std::string_view words);     ///< standard output
void complain(std::string_view words);  ///< standard error
/// Compact, with numbers as people write them.
std::string json_text(const boost::json::value& value);
void print_json(const boost::json::value& value);

/// Prints the error in the form that was asked for, and gives the exit code. `about`: see render_switch.
int conclude(const Error& error, const Output& output, std::string_view about = {});
int conclude(const Invocation& invocation, const Result<boost::json::value>& answer, const Output& output);

/// Runs a verb in this process.
Result<boost::json::value> call(const Paths& paths, const Verb& verb, const boost::json::object& request,
                                const Output& output);
/// Runs a mutating verb in a worker and follows it: the exit code.
int follow(const Paths& paths, const Invocation& invocation, const Output& output);

/// "service start embedding": what was asked for, without options; printable.
std::string about(const Invocation& invocation);
/// What a report of it is about; "" where that is the modes it goes between.
std::string subject(const Invocation& invocation);

}  // namespace gpumod::cli
