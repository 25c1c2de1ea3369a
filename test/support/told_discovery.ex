defmodule Support.ToldDiscovery do
  @moduledoc "A discovery that answers what a test tells it, one answer after the other and the last one for ever; `:raise` is a fault."
  @behaviour Tiebeam.Discovery

  @doc "An agent with the answers, for the option `:answers`."
  def answers(answers),
    do: ExUnit.Callbacks.start_supervised!({Agent, fn -> {answers, 0} end}, id: make_ref())

  def tell(agent, answers), do: Agent.update(agent, fn {_answers, _looks} -> {answers, 0} end)

  @doc "How often it was asked since it was last told something."
  def looks(agent), do: Agent.get(agent, fn {_answers, looks} -> looks end)

  @impl true
  def init(options), do: Keyword.fetch!(options, :answers)

  @impl true
  def find(agent) do
    case Agent.get_and_update(agent, &next/1) do
      :raise -> raise "a fault of the user's"
      {known, nodes} -> {known, nodes, agent}
    end
  end

  defp next({[last], looks}), do: {last, {[last], looks + 1}}
  defp next({[answer | rest], looks}), do: {answer, {rest, looks + 1}}

  @doc "Connects to nobody, tells `test` and answers `result`: for the option `:connect`."
  def connect(test, result, node) do
    send(test, {:connect, node})
    result
  end
end
