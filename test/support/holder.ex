defmodule Support.Holder do
  @moduledoc "A process of a node that holds what the group grants, and keeps what it was told, with times. Runs on that node."

  @doc "Starts one that asks by `module.function` with the arguments; answers it and what it was answered."
  def start(module, function, arguments) do
    pid = start_waiting(module, function, arguments)
    {pid, answer(pid)}
  end

  @doc "Starts one, without waiting for what it is answered."
  def start_waiting(module, function, arguments) do
    spawn(fn ->
      answer = apply(module, function, arguments)
      keep({now(), answer}, [])
    end)
  end

  @doc "What it was answered."
  def answer(pid), do: pid |> answered() |> elem(1)

  @doc "The same with the time, in microseconds of the system."
  def answered(pid), do: ask(pid, :answered)

  @doc "What it was told, in order."
  def told(pid), do: for({_time, event} <- told_at(pid), do: event)

  @doc "The same with the times."
  def told_at(pid), do: ask(pid, :told)

  defp ask(pid, what) do
    send(pid, {what, self()})

    receive do
      {^what, ^pid, answer} -> answer
    end
  end

  defp keep(answer, events) do
    receive do
      {:tiebeam, _cluster, event} ->
        keep(answer, [{now(), event} | events])

      {:answered, asker} ->
        send(asker, {:answered, self(), answer})
        keep(answer, events)

      {:told, asker} ->
        send(asker, {:told, self(), Enum.reverse(events)})
        keep(answer, events)
    end
  end

  defp now, do: System.os_time(:microsecond)
end
