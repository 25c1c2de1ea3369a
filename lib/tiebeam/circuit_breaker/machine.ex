defmodule Tiebeam.CircuitBreaker.Machine do
  @moduledoc false
  # A circuit breaker as a value: what it is told, and when, decides whom it lets through. The same as
  # `circuit_breaker/machine.rs` of a Rust node. Time is in milliseconds since some origin, and never goes back.

  # `phase` is `{:closed, failures in a row}`, `{:open, until}`, or `{:half_open, running, successes}`: how many of those that
  # were let through have not ended, and how many ended well. `epoch` counts its changes; it is also the permit of a call, because
  # how a call ends counts only in the phase that let it through.
  @enforce_keys [:failures, :pause, :trials]
  defstruct @enforce_keys ++ [phase: {:closed, 0}, epoch: 0]

  @type epoch :: non_neg_integer
  @type phase ::
          {:closed, non_neg_integer}
          | {:open, until :: integer}
          | {:half_open, non_neg_integer, non_neg_integer}
  @type t :: %__MODULE__{
          failures: pos_integer,
          pause: non_neg_integer,
          trials: pos_integer,
          phase: phase,
          epoch: epoch
        }

  @doc "Lets a call through, or says for how long to leave the other alone."
  @spec admit(t, now :: integer) :: {:ok, epoch, t} | {:error, milliseconds :: non_neg_integer, t}
  def admit(%{phase: {:closed, _failures}} = machine, _now), do: {:ok, machine.epoch, machine}
  def admit(%{phase: {:open, until}} = machine, now) when now < until, do: {:error, until - now, machine}
  def admit(%{phase: {:open, _until}} = machine, now), do: machine |> change({:half_open, 0, 0}) |> admit(now)

  def admit(%{phase: {:half_open, running, successes}, trials: trials} = machine, _now)
      when running + successes < trials,
      do: {:ok, machine.epoch, %{machine | phase: {:half_open, running + 1, successes}}}

  def admit(machine, _now), do: {:error, 0, machine}

  @doc "How a call ended: `:given_up` says nothing of who was asked."
  @spec ended(t, epoch, :succeeded | :failed | :given_up, now :: integer) :: t
  def ended(%{epoch: epoch, phase: phase} = machine, epoch, how, now) do
    case {phase, how} do
      {{:closed, _}, :succeeded} -> %{machine | phase: {:closed, 0}}
      {{:closed, n}, :failed} when n + 1 >= machine.failures -> open(machine, now)
      {{:closed, n}, :failed} -> %{machine | phase: {:closed, n + 1}}
      {{:half_open, _, n}, :succeeded} when n + 1 >= machine.trials -> change(machine, {:closed, 0})
      {{:half_open, running, n}, :succeeded} -> %{machine | phase: {:half_open, running - 1, n + 1}}
      {{:half_open, _, _}, :failed} -> open(machine, now)
      {{:half_open, running, n}, :given_up} -> %{machine | phase: {:half_open, running - 1, n}}
      _no_change -> machine
    end
  end

  def ended(machine, _earlier, _how, _now), do: machine

  @doc "Whether calls are let through: half open from the end of the pause on."
  @spec state(t, now :: integer) :: Tiebeam.CircuitBreaker.state()
  def state(%{phase: {:closed, _}}, _now), do: :closed
  def state(%{phase: {:open, until}}, now) when now < until, do: :open
  def state(_machine, _now), do: :half_open

  defp open(machine, now), do: change(machine, {:open, now + machine.pause})

  defp change(machine, phase), do: %{machine | phase: phase, epoch: machine.epoch + 1}
end
