// What a doctor says of one thing: how it is, why that matters, and how to mend it. Values alone.
#pragma once

#include <string>
#include <vector>

#include <boost/json/array.hpp>

namespace gpumod {

/// From good to bad. note: works, and is worth knowing. skipped: could not be looked at, and the finding says why.
enum class Health { ok, skipped, note, warning, failure };
std::string_view to_string(Health health);

struct Finding {
  Health state = Health::ok;
  std::string text;  ///< what was found
  std::string mend;  ///< what to do about it, or the command that does; "" where there is nothing to do
};

/// A remedy that is safe to carry out for people who agree: it touches nothing but what is theirs.
struct Fix {
  enum class Kind { enable_linger, make_folder, restrict_mode } kind = Kind::make_folder;
  std::string subject;  ///< the user, the folder or the file
  unsigned mode = 0;    ///< of the folder or file afterwards
};
std::string describe(const Fix& fix);

struct Check {
  std::string id;     ///< "gpu.driver": stable, for scripts
  std::string group;  ///< what it is shown under
  std::string title;
  std::string why;  ///< why it matters
  std::vector<Finding> findings = {};
  std::vector<Fix> fixes = {};

  Health state() const;  ///< the worst of its findings
  void ok(std::string text) { findings.push_back({Health::ok, std::move(text), {}}); }
  void note(std::string text, std::string mend = {});
  void warn(std::string text, std::string mend);
  void fail(std::string text, std::string mend);
  void skip(std::string why_not) { findings.push_back({Health::skipped, std::move(why_not), {}}); }
};

/// The worst of all.
Health worst_of(const std::vector<Check>& checks);

/// [{"id","group","title","state","why","findings":[{"state","text","mend"}]}], each check's worst finding first.
boost::json::array describe_checks(const std::vector<Check>& checks);

}  // namespace gpumod
