defmodule Support.Holder do
  @moduledoc "A process of a node that holds what the group grants, and keeps what it was told, with times. Runs on that node."

  # How often it looks whether it has a turn, in milliseconds.
  @pause 5

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

  @doc "The longest time in which it had no turn, in microseconds: its node stood still."
  def longest_pause(pid), do: ask(pid, :longest_pause)

  defp ask(pid, what) do
    send(pid, {what, self()})

    receive do
      {^what, ^pid, answer} -> answer
    end
  end

  defp keep({at, _} = answer, events, last \\ nil, longest \\ 0) do
    now = now()
    longest = max(longest, now - (last || at))

    receive do
      {:tiebeam, _cluster, event} ->
        keep(answer, [{now(), event} | events], now, longest)

      {:answered, asker} ->
        send(asker, {:answered, self(), answer})
        keep(answer, events, now, longest)

      {:told, asker} ->
        send(asker, {:told, self(), Enum.reverse(events)})
        keep(answer, events, now, longest)

      {:longest_pause, asker} ->
        send(asker, {:longest_pause, self(), longest})
        keep(answer, events, now, longest)
    after
      @pause -> keep(answer, events, now, longest)
    end
  end

  defp now, do: System.os_time(:microsecond)
end
