// A switch while it happens: one line a step, redrawn in place on a terminal, appended elsewhere.
//
// ProgressView knows what to show and touches nothing; LiveArea owns the last lines of a terminal. The area is redrawn
// by going up to its first line and writing each line over what was there. When the terminal was made narrower
// meanwhile, it has wrapped our lines: how many rows they now take is computed from their widths.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include <boost/json/object.hpp>

#include "base/time.h"
#include "faces/cli/style.h"

namespace gpumod::cli {

class ProgressView {
 public:
  /// `title`: what is going on, printable, until the plan says more.
  explicit ProgressView(std::string title) : title_(std::move(title)) {}

  void on_event(const boost::json::object& event, TimePoint now);
  /// Shown instead of how to take it back.
  void set_hint(std::string hint) { hint_ = std::move(hint); }

  /// How full each GPU is, one line each; nothing while that is unknown.
  std::vector<std::string> vram_bars(const Screen& screen) const;
  /// At most `screen.height - 1` lines, each narrower than the screen, without '\n'.
  std::vector<std::string> lines(const Screen& screen, TimePoint now, unsigned turn) const;
  /// What an event says, as one appended line; nothing when it is not worth one.
  std::optional<std::string> appended(const boost::json::object& event, const Screen& screen = {}) const;

  std::optional<std::int64_t> switch_id() const { return id_; }
  const std::string& from() const { return from_; }

 private:
  struct Step {
    std::int64_t index = 0;
    std::string action;
    std::string subject;
    std::string result = "pending";
    std::string stage;
    std::string note;
    std::string took;
    int attempts = 0;
    bool undo = false;
    double expected = 0;  // seconds; 0: not known
    std::optional<TimePoint> began;
  };
  Step& step_of(const boost::json::object& event);
  static std::string action_of(const Step& step);
  std::string line_of(const Step& step, int action_width, int subject_width, const Screen& screen, TimePoint now,
                      unsigned turn) const;

  std::string title_;
  std::string hint_ = "Ctrl-C takes it back";
  std::string from_, to_;
  std::optional<TimePoint> expected_end_;
  std::optional<std::int64_t> id_;
  std::vector<Step> steps_;
  struct Gpu {
    std::string name;
    std::int64_t used = 0, total = 0;  // bytes
  };
  std::vector<Gpu> gpus_;
};

/// The lines at the bottom of a terminal that are ours to redraw. While there are any, the cursor is hidden.
class LiveArea {
 public:
  explicit LiveArea(int descriptor) : descriptor_(descriptor) {}
  ~LiveArea() { clear(); }
  LiveArea(const LiveArea&) = delete;
  LiveArea& operator=(const LiveArea&) = delete;

  void draw(const std::vector<std::string>& lines, const Screen& screen);
  /// Erases them and shows the cursor, so that ordinary text can follow.
  void clear();
  /// Somebody else has written below them: what stands there stays.
  void forget();

 private:
  std::string back_to_top(int width) const;

  int descriptor_;
  int width_ = 0;
  std::vector<int> drawn_;  ///< the width of each line that stands there
};

}  // namespace gpumod::cli
