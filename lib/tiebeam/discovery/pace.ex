defmodule Tiebeam.Discovery.Pace do
  @moduledoc false
  # How long to wait before the next look, and before the next attempt to reach a node, in milliseconds. Pure: chance is
  # an argument, a number from 0 to 1.

  # The shortest pause between two looks. A discovery that waits by itself hands on at most so many batches a second, so that
  # a flood of packets costs little.
  @floor 10

  # The first pause after a look that failed, where the interval is shorter: what is broken is not mended in less.
  @failed_first 1_000

  # The longest one: the time in which a mended resolver is noticed.
  @failed_max 60_000

  # The first and the longest pause before a node that was not reached is dialled again. Half a minute is what a node that
  # starts slowly waits at most; a name that is in DNS for ever, and no node, costs two dials a minute.
  @dial_first 1_000
  @dial_max 30_000

  @doc """
  The pause before the next look, after so many that failed in succession.

      iex> for failures <- [0, 1, 2, 3, 100], do: Tiebeam.Discovery.Pace.pause(5_000, failures, 0.5)
      [5_000, 5_000, 10_000, 20_000, 60_000]
      iex> for chance <- [0.0, 1.0], do: Tiebeam.Discovery.Pace.pause(4_000, 0, chance)
      [3_000, 5_000]
      iex> for failures <- [0, 1], do: Tiebeam.Discovery.Pace.pause(0, failures, 0.5)
      [10, 1_000]
  """
  @spec pause(non_neg_integer, non_neg_integer, float) :: pos_integer
  def pause(interval, 0, chance), do: max(spread(interval, chance), @floor)

  def pause(interval, failures, chance) do
    interval |> max(@failed_first) |> doubled(failures - 1, max(@failed_max, interval)) |> spread(chance)
  end

  @doc """
  The pause before a node is dialled again that was not reached so many times, at least one.

      iex> for failures <- 1..7, do: Tiebeam.Discovery.Pace.redial(failures, 0.5)
      [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]
  """
  @spec redial(pos_integer, float) :: pos_integer
  def redial(failures, chance), do: @dial_first |> doubled(failures - 1, @dial_max) |> spread(chance)

  # Sixteen doublings are more than any of these limits.
  defp doubled(first, times, most), do: min(first * Integer.pow(2, min(times, 16)), most)

  # A quarter more or less: nodes that started together do not go on in step.
  defp spread(pause, chance), do: round(pause * (0.75 + chance / 2))
end
