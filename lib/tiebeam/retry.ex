defmodule Tiebeam.Retry do
  @moduledoc """
  How often, and how soon, something that failed is tried again: a value, the same as `RetryPolicy` of a Rust node.

      iex> policy = Tiebeam.Retry.new(attempts: 5, delay: 100, max: 500, jitter: :none)
      iex> Tiebeam.Retry.pauses(policy)
      [100, 200, 400, 500]

      iex> {:ok, tries} = Agent.start_link(fn -> 0 end)
      iex> Tiebeam.Retry.run(Tiebeam.Retry.new(delay: 1), fn ->
      ...>   if Agent.get_and_update(tries, &{&1, &1 + 1}) < 2, do: {:error, :busy}, else: {:ok, :done}
      ...> end)
      {:ok, :done}

  `Tiebeam.Registry.register_with_retry/5` takes one.
  """

  @jitters [:none, :full, :equal, :decorrelated]

  defstruct attempts: 3, delay: 100, max: 5_000, jitter: :full

  @typedoc """
  - `attempts` - how many there are at most, the first one included.
  - `delay`, `max` - the first and the longest pause in milliseconds; the pauses between double.
  - `jitter` - how much of a pause is chance, so that those who failed together do not come back together: `:none`, anything up to
    the pause (`:full`), at least half of it (`:equal`), or between the first pause and three times the last one (`:decorrelated`).
    The names are those of M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
  """
  @type t :: %__MODULE__{
          attempts: pos_integer,
          delay: non_neg_integer,
          max: non_neg_integer,
          jitter: :none | :full | :equal | :decorrelated
        }

  @doc """
  A policy, of the fields of `t:t/0`; by default three attempts, 100 ms to 5 s apart, with `:full` jitter.

      iex> Tiebeam.Retry.new(attempts: 0)
      ** (ArgumentError) the option :attempts must be a positive integer, got: 0
  """
  @spec new(keyword) :: t
  def new(options \\ []) do
    policy = struct!(__MODULE__, options)

    check!(
      :attempts,
      policy.attempts,
      is_integer(policy.attempts) and policy.attempts > 0,
      "a positive integer"
    )

    for field <- [:delay, :max], value = Map.fetch!(policy, field) do
      check!(field, value, is_integer(value) and value >= 0, "a number of milliseconds")
    end

    check!(:jitter, policy.jitter, policy.jitter in @jitters, "one of #{inspect(@jitters)}")
    policy
  end

  defp check!(_field, _value, true, _what), do: :ok

  defp check!(field, value, false, what),
    do: raise(ArgumentError, "the option #{inspect(field)} must be #{what}, got: #{inspect(value)}")

  @doc """
  The pauses between the attempts, in milliseconds: one less than there are attempts. `chance` gives numbers from 0.0 to 1.0.

      iex> policy = Tiebeam.Retry.new(attempts: 4, jitter: :equal)
      iex> Tiebeam.Retry.pauses(policy, fn -> 0.0 end)
      [50, 100, 200]
  """
  @spec pauses(t, (() -> float)) :: [non_neg_integer]
  def pauses(%__MODULE__{} = policy, chance \\ &:rand.uniform/0) do
    {pauses, _} =
      Enum.map_reduce(Enum.take(0..policy.attempts, policy.attempts - 1), 0, fn count, last ->
        pause = pause(policy, count, last, chance)
        {pause, pause}
      end)

    pauses
  end

  defp pause(%{jitter: :decorrelated} = policy, _count, last, chance) do
    high = 3 * max(last, policy.delay)
    min(policy.max, between(policy.delay, high, chance))
  end

  defp pause(policy, count, _last, chance) do
    # Past 32 doublings every pause is the longest.
    plain = min(policy.max, policy.delay * Integer.pow(2, min(count, 32)))

    case policy.jitter do
      :none -> plain
      :full -> between(0, plain, chance)
      :equal -> between(div(plain, 2), plain, chance)
    end
  end

  defp between(low, high, chance), do: low + round((high - low) * chance.())

  @doc """
  Calls `fun` until it answers anything but `{:error, reason}` with a reason for which `retryable?` is true, or no attempts are
  left: then the answer is the last one. Sleeps between the attempts.

  By default a reason is retryable if what was asked for was certainly not done, and the reason may pass: `:busy`, `:no_worker`,
  `:noproc`, `:noconnection`, `{:noconnection, node}`, `:no_owner`, `:no_quorum`, `{:not_founded, missing}`. What may have been done before a failure, such as after a timeout, only
  the caller knows to be safe to repeat.

      iex> Tiebeam.Retry.run(Tiebeam.Retry.new(delay: 1), fn -> {:error, :timeout} end)
      {:error, :timeout}
      iex> Tiebeam.Retry.run(Tiebeam.Retry.new(delay: 1), fn -> {:error, :timeout} end, fn _ -> true end)
      {:error, :timeout}
  """
  @spec run(t, (() -> answer), (term -> boolean)) :: answer when answer: term
  def run(%__MODULE__{} = policy, fun, retryable? \\ &retryable?/1) do
    attempt(fun, retryable?, pauses(policy))
  end

  defp attempt(fun, _retryable?, []), do: fun.()

  defp attempt(fun, retryable?, [pause | pauses]) do
    with {:error, reason} = answer <- fun.() do
      if retryable?.(reason) do
        Process.sleep(pause)
        attempt(fun, retryable?, pauses)
      else
        answer
      end
    end
  end

  defp retryable?({:noconnection, _node}), do: true
  defp retryable?({:not_founded, _missing}), do: true
  defp retryable?(reason), do: reason in [:busy, :no_worker, :no_owner, :noproc, :noconnection, :no_quorum]
end
