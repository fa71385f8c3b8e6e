#include "control/examine.h"

namespace gpumod {

Task<std::optional<Examination>> examine(Machine& machine, Service service, Signal& given_up) {
  const auto questions = examination_of(service);
  std::vector<Result<HttpReply>> replies;
  for (const auto& question : questions) {
    HttpRequest request = question.request;
    auto reply = co_await machine.http->request(std::move(request), &given_up);
    if (given_up.is_set()) co_return std::nullopt;
    replies.push_back(std::move(reply));
    if (!replies.back()) break;
  }
  co_return judge_examination(service, questions, replies);
}

}  // namespace gpumod
