// Answers of verbs, for people. What is shown comes from the JSON alone, so that it can be tested with literals and so
// that nothing is shown here that a script could not have.
#pragma once

#include <string>
#include <vector>

#include <boost/json/value.hpp>

#include "base/result.h"
#include "faces/cli/style.h"

namespace gpumod::cli {

/// The answer of the verb of this name. An unknown verb's answer is shown as plain keys and values.
std::string render(std::string_view verb, const boost::json::value& answer, const Screen& screen);

/// What was asked for and came with an error all the same: a quality run that failed, the figures of a bench that was
/// given up, a simulation of what does not fit, differences. "" when there is none. It belongs where answers go.
std::string render_report(const Error& error, const Screen& screen);
/// "gpumod: …", the hint, and what else the details hold: a switch, problems of files.
std::string render_error(const Error& error, const Screen& screen, std::string_view about = {});
/// Free text that may be long, and have several lines: printable, wrapped to the screen, each line after `indent`
/// blanks, the first after `lead` (printable, as wide as the indent or shorter) instead.
std::string paragraph(std::string_view words, const Screen& screen, int indent, std::string_view lead = {},
                      Ink lead_ink = Ink::plain);
/// Problems of the catalogue, one line each; "" when there are none.
std::string render_problems(const boost::json::value& problems, const Screen& screen, int indent = 0);

/// brief: a GPU is a line of a bar and figures. visual: a bar across the screen, with a legend.
enum class Picture { brief, visual };
std::string render_status(const boost::json::value& answer, const Screen& screen, Picture picture = Picture::brief);
std::string render_mode_status(const boost::json::value& answer, const Screen& screen);
std::string render_mode_list(const boost::json::value& answer, const Screen& screen);
std::string render_mode(const boost::json::value& answer, const Screen& screen);
std::string render_service_list(const boost::json::value& answer, const Screen& screen);
std::string render_service(const boost::json::value& answer, const Screen& screen);
std::string render_logs(const boost::json::value& answer, const Screen& screen);
/// One line of a log: {"time","text"}.
std::string render_log_line(const boost::json::value& line, const Screen& screen);
/// {"plan","to"}: what would be done, in order.
std::string render_plan(const boost::json::value& answer, const Screen& screen);
/// {"simulation": …}: a switch that was thought through, its memory as a table or as bars.
std::string render_simulation(const boost::json::value& answer, const Screen& screen);
enum class Steps { hidden, shown };
/// {"switch": …}: how it went. Steps are hidden where they have been shown while they happened. `about`: what was asked
/// for, printable; "" says the modes instead.
std::string render_switch(const boost::json::value& answer, const Screen& screen, Steps steps,
                          std::string_view about = {});
/// {"switches": …}: one a line.
std::string render_history(const boost::json::value& answer, const Screen& screen);
/// {"recording": …}: a switch over its time.
std::string render_recording(const boost::json::value& answer, const Screen& screen);
/// {"bench": …}: how long switches took, and against another day.
std::string render_bench(const boost::json::value& answer, const Screen& screen);
/// The result of a switch in words, and its colour.
std::string outcome_words(const std::string& result);
Ink outcome_ink(const std::string& result);
std::string render_config_check(const boost::json::value& answer, const Screen& screen);
std::string render_init(const boost::json::value& answer, const Screen& screen);
/// What a model is, and what it takes.
std::string render_model(const boost::json::value& answer, const Screen& screen);
std::string render_gpu_list(const boost::json::value& answer, const Screen& screen);
std::string render_gpu_processes(const boost::json::value& answer, const Screen& screen);
std::string render_model_list(const boost::json::value& answer, const Screen& screen);
/// render_model() with its files, and who uses it.
std::string render_model_info(const boost::json::value& answer, const Screen& screen);
/// {"registered": …} and {"removed": …}.
std::string render_model_record(const boost::json::value& answer, const Screen& screen);
std::string render_model_scan(const boost::json::value& answer, const Screen& screen);
/// 30.5 B, 560 M: of parameters.
std::string round_count(const boost::json::value& amount);
/// {"qa": …}: a quality run; {"tour": …}: what one would do; {"runs": …}; {"diff": …}.
std::string render_qa(const boost::json::value& answer, const Screen& screen);
std::string render_qa_tour(const boost::json::value& answer, const Screen& screen);
std::string render_qa_list(const boost::json::value& answer, const Screen& screen);
std::string render_qa_diff(const boost::json::value& answer, const Screen& screen);
std::string render_unit(const boost::json::value& answer, const Screen& screen);

/// "● running", in the colour of the state.
struct Cell;
Cell state_cell(const std::string& state, const Screen& screen);

/// The lines of a table with a line of titles; below each row its notes, dimmed.
std::string with_notes(const std::string& table, const std::vector<std::vector<std::string>>& notes,
                       const Screen& screen);

}  // namespace gpumod::cli
