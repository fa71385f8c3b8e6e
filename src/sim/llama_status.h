// What a server says of itself: properties, slots, figures. Pure, as llama_replies.h.
#pragma once

#include <deque>

#include <boost/json/array.hpp>

#include "sim/llama_flags.h"
#include "sim/llama_replies.h"

namespace gpumod::sim {

struct LlamaSlot {
  int context = 0;
  bool busy = false;
  bool used = false;  ///< it has had a question, and keeps showing it
  int task = 0;
  std::int64_t turn = 0;  ///< when it was last taken, counted in takings
  LlamaQuestion question = {};
  int prompt_tokens = 0;
  int generated = 0;
};

struct LlamaCounters {
  std::int64_t prompt_tokens = 0;
  double prompt_seconds = 0;
  std::int64_t generated_tokens = 0;
  double generation_seconds = 0;
  int longest = 0;
};

boost::json::object llama_props(const LlamaSettings& settings, const LlamaIdentity& identity, const LlamaModel& model,
                                int context, std::size_t slots, bool asleep);
boost::json::array llama_slots(const std::deque<LlamaSlot>& slots);
/// Prometheus' text format.
std::string llama_metrics(const LlamaCounters& counters, const std::deque<LlamaSlot>& slots);
boost::json::object tokenized(const std::string& body);
ServerReply llama_too_long(int prompt_tokens, int context);

}  // namespace gpumod::sim
